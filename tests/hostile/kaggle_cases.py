"""How Kaggle can misbehave, in one table: what the user is told, what is left, and what the next run makes of it.

After each row the same command runs again without the fault, and must complete: with one submission of the CSV.
"""

from collections.abc import Sequence
from pathlib import Path

from tests.hostile import kaggle_ways as ways
from tests.hostile.kaggle_runs import Case, run_cases

ENDING = 'fields={"nextPageToken": "1"}'  # of a list that never ends
TWICE = {"attempts": 2}
IMPATIENT = {"timeout": 6.0, "upload_timeout": 6.0, "attempts": 1}  # towards a Kaggle that hangs
SETTINGS, RULES = (
    "https://www.kaggle.com/settings",
    "accept its rules at https://www.kaggle.com/competitions/tiny/rules",
)
SPELLED, BUSY, LATER = "is --competition tiny spelled right?", "try again later", "pip install -U kaggle"
NETWORK, NEW_LINK, LIST = "check the network and run again", "run again, for a new link", "it looks there first"
NO_ANSWER, TOMORROW = "did not answer within 6 s", "00:00 UTC"
SPACE, PERMISSIONS = "free space", "change its permissions"
REFUSED = '{"code": 500, "message": "inside"}'  # with status 200
ZIP = 10_000_000  # bytes of the download, about


def _files(name: str, size: str) -> str:
    return f'ListDataFiles:fields={{"files": [{{"name": {name}, "totalBytes": {size}}}]}}'


DOWNLOAD: Sequence[Case] = (
    Case("401", "download", "ListDataFiles:status=401", 5, SETTINGS, command=(), short=True),
    Case("401 for the token", "download", "IntrospectToken:status=401", 5, SETTINGS, short=True),
    Case("a token that is valid no more", "download", ways.token_alone('IntrospectToken:body={"active": false}'), 5,
         SETTINGS, short=True),
    *(
        Case(f"nonsense about the token, {text or 'nothing'}", "download",
             ways.token_alone(f"IntrospectToken:body{text and '='}{text}"), 6, LATER)
        for text in ("", "7", "null", "[]", "<p>")
    ),
    Case("403 for the token", "download", ways.token_alone("IntrospectToken:status=403"), 5, SETTINGS),
    Case("a token that nobody can read", "download", ways.unreadable_token, 5, SETTINGS),
    Case("403, rules not accepted", "download", "ListDataFiles:status=403", 5, RULES, command=(), short=True),
    Case("403 for the files", "download", "DownloadDataFiles:status=403", 5, RULES),
    Case("404, no such competition", "download", "ListDataFiles:status=404", 2, SPELLED, command=(), short=True),
    Case("404, no such file", "download", "DownloadDataFiles:status=404", 2, SPELLED),
    Case("404 in the storage", "download", "Download:status=404", 6, NEW_LINK),
    Case("400", "download", "ListDataFiles:status=400", 4, "Kaggle refused the request (400"),
    Case("429 with Retry-After", "download", "ListDataFiles:status=429,retry=0", 6, BUSY),
    Case("429 without Retry-After", "download", "ListDataFiles:status=429,retry=none", 6, BUSY, short=True),
    Case("429 once", "download", "ListDataFiles:status=429,retry=0*1", 0, "trying again in 0 s", "complete",
         client=TWICE),
    Case("500", "download", "ListDataFiles:status=500", 6, "busy or down (500", short=True),
    Case("500 once", "download", "DownloadDataFiles:status=500*1", 0, "trying again", "complete",
         client=TWICE),
    Case("500 with status 200", "download", f"ListDataFiles:body={REFUSED}", 6, "busy or down (500", short=True),
    Case("502 HTML", "download", "ListDataFiles:html", 6, "busy or down (502", short=True),
    Case("502 HTML from the storage", "download", "Download:html", 6, NEW_LINK),
    Case("an expired link", "download", "Download:status=403", 6, NEW_LINK, short=True),
    Case("an expired link, once", "download", "Download:status=403*1", 0, "trying again", "complete", client=TWICE,
         short=True),
    Case("a link expires midway", "download", ways.link_expires_midway, 0, "trying again", "complete",
         client={"attempts": 3}, short=True),
    *(
        Case(f"cut at {k} tenths", "download", f"DownloadDataFiles:cut={k * ZIP // 10}*1", 0, "trying again",
             "complete", client=TWICE)
        for k in range(10)
    ),
    Case("cut at each tenth", "download", f"DownloadDataFiles:cut={ZIP // 9}", 0, "going on after", "complete"),
    Case("cut at each third", "download", f"DownloadDataFiles:cut={ZIP // 3}", 0, "going on after", "complete",
         short=True),
    Case("cut at once, always", "download", "DownloadDataFiles:cut=0", 6, NETWORK, short=True),
    Case("half of it, as if that were all", "download", "DownloadDataFiles:truncate", 4, "zip"),
    Case("half of it, once", "download", "DownloadDataFiles:truncate*1", 0, "downloading once more", "complete"),
    Case("a flipped byte", "download", "DownloadDataFiles:flip", 4, "ballast.bin", short=True),
    Case("a flipped byte, once", "download", "DownloadDataFiles:flip*1", 0, "downloading once more", "complete",
         short=True),
    Case("another size is listed", "download", _files('"cifar_test_nolabel.pkl"', "5"), 4, "Kaggle lists 5"),
    Case("a file is missing", "download", _files('"gone.bin"', "5"), 4, "gone.bin, which did not come"),
    Case("a huge size", "download", _files('"ballast.bin"', "4" * 18), 1, SPACE),
    Case("a size without sense", "download", _files('"ballast.bin"', "1" + "0" * 30), 6, LATER),
    Case("a negative size", "download", _files('"ballast.bin"', "-1"), 6, LATER),
    Case("a size that is text", "download", _files('"ballast.bin"', '"12"'), 6, LATER, short=True),
    Case("a name that is a number", "download", _files("7", "12"), 6, LATER),
    Case("no JSON", "download", "ListDataFiles:body=<p>", 6, LATER, short=True),
    Case("another JSON", "download", "ListDataFiles:body=[7]", 6, LATER),
    Case("an empty body", "download", "ListDataFiles:body", 6, LATER, short=True),
    Case("no redirect to a file", "download", "DownloadDataFiles:body={}", 6, "left no file: run again", short=True),
    Case("a redirect loop", "download", "DownloadDataFiles:loop", 6, LATER, short=True),
    Case("a list that never ends", "download", f"ListDataFiles:{ENDING}", 6, LATER, short=True),
    *(
        Case(f"{call} is closed at once", "download", f"{call}:close", 6, NETWORK, short=call == "ListDataFiles")
        for call in ("IntrospectToken", "ListDataFiles", "DownloadDataFiles", "Download")
    ),
    Case("nobody listens", "download", lambda here: ways.nobody_listens(here, "download"), 6, NETWORK),
    *(
        Case(f"{call} hangs", "download", f"{call}:hang=60", 6, NO_ANSWER, client=IMPATIENT,
             short=call == "ListDataFiles")
        for call in ("IntrospectToken", "ListDataFiles")
    ),
    *(
        Case(f"{call} hangs", "download", f"{call}:hang=60", 6, "stalled for 6 s: run again to resume it",
             client=IMPATIENT, short=call == "Download")
        for call in ("DownloadDataFiles", "Download")
    ),
    Case("two runs at once", "download", ways.two_downloads, 2, "another run is at work on", short=True),
    Case("no space, known beforehand", "download", ways.no_space("4m"), 1, SPACE),
    Case("no space for the archive", "download", ways.no_space("4m", 'ListDataFiles:fields={"files": []}*1'), 1, SPACE,
         short=True),
    Case("no space to unpack it", "download", ways.no_space("14m", 'ListDataFiles:fields={"files": []}*1'), 1,
         SPACE),
    Case("a limit of a file's size", "download", ways.file_too_large, 1, SPACE, short=True),
    Case("a read-only folder", "download", ways.read_only("download"), 1, PERMISSIONS, short=True),
)  # fmt: skip

SUBMIT: Sequence[Case] = (
    Case("401", "submit", "ListSubmissions:status=401", 5, SETTINGS, short=True),
    Case("403, rules not accepted", "submit", "ListSubmissions:status=403", 5, RULES, short=True),
    Case("500 before sending", "submit", "ListSubmissions:status=500", 6, BUSY, short=True),
    Case("502 HTML before sending", "submit", "GetSubmissionLimits:html", 6, BUSY, short=True),
    Case("an unknown status", "submit", 'ListSubmissions:fields={"submissions": [{"ref": 1, "status": "ODD"}]}', 6,
         LATER),
    Case("a ref that is text", "submit", 'ListSubmissions:fields={"submissions": [{"ref": "1"}]}', 6, LATER),
    Case("another JSON", "submit", "ListSubmissions:body=[7]", 6, LATER, short=True),
    Case("a negative ref", "submit", 'ListSubmissions:fields={"submissions": [{"ref": -1}]}', 6, LATER),
    Case("a list that never ends", "submit", f"ListSubmissions:{ENDING}", 6, LATER, short=True),
    Case("no JSON", "submit", "ListSubmissions:body=<p>", 6, LATER),
    Case("an empty body", "submit", "GetSubmissionLimits:body", 6, LATER),
    *(
        Case(f"a limit of {value}", "submit", f'GetSubmissionLimits:fields={{"numAllowedNow": {value}}}', 6, LATER,
             short=value == "-1")
        for value in ('"many"', "-1", "1" + "0" * 30, "null", "0.5")
    ),
    Case("the day's limit", "submit", 'GetSubmissionLimits:fields={"numToday": 9, "numTotal": 9, "numAllowedNow": 0}',
         7, TOMORROW, command=(), short=True),
    Case("the competition's limit", "submit",
         'GetSubmissionLimits:fields={"numTotal": 9, "numAllowedNow": 0, "limitedByTotal": true}', 7, "takes no more"),
    Case("refused at the limit", "submit", ways.refused_at_the_limit, 7, TOMORROW, short=True),
    *(
        Case(f"{call} hangs", "submit", f"{call}:hang=60", 6, NO_ANSWER, client=IMPATIENT)
        for call in ("ListSubmissions", "GetSubmissionLimits")
    ),
    *(
        Case(f"{call} hangs", "submit", f"{call}:hang=60", 6, LIST, client=IMPATIENT)
        for call in ("StartSubmissionUpload", "Upload")
    ),
    Case("CreateSubmission hangs, then it counts", "submit", ways.arrives_after_the_last_look, 6, LIST, sent=1,
         short=True),
    Case("GetSubmission hangs", "submit", "GetSubmission:hang=60", 6, "ref 90000001 was accepted", sent=1,
         client=IMPATIENT),
    *(
        Case(f"{call} is closed at once", "submit", f"{call}:close", 6, NETWORK)
        for call in ("ListSubmissions", "GetSubmissionLimits", "StartSubmissionUpload")
    ),
    Case("nobody listens", "submit", lambda here: ways.nobody_listens(here, "submit"), 6, NETWORK),
    Case("the upload cannot begin", "submit", "StartSubmissionUpload:status=500", 6, BUSY),
    Case("the upload cannot begin, once", "submit", "StartSubmissionUpload:status=500*1", 0, "scored", "complete", 1),
    Case("the upload leads nowhere", "submit", "StartSubmissionUpload:body={}", 6, NETWORK),
    Case("400 for the upload", "submit", "Upload:status=400", 6, NETWORK),
    Case("503 for the upload", "submit", "Upload:status=503", 6, NETWORK),
    Case("503 for the upload, once", "submit", "Upload:status=503*1", 0, "is scored", "complete", 1),
    Case("the upload is cut, once", "submit", "Upload:cut=9*1", 0, "is scored", "complete", 1, short=True),
    Case("the upload is always cut", "submit", "Upload:cut=9", 6, LIST, client={"timeout": 6.0, "upload_timeout": 6.0}),
    Case("refused", "submit", "CreateSubmission:status=400", 4, "Kaggle refused the request (400"),
    Case("403 at the end", "submit", "CreateSubmission:status=403", 5, RULES),
    Case("429 at the end", "submit", "CreateSubmission:status=429,retry=0", 6, BUSY),
    Case("its list fails after it was taken", "submit", ways.list_fails_after, 6, "as ref 90000001", sent=1),
    Case("429 at the end, once", "submit", "CreateSubmission:status=429,retry=1*1", 0, "is scored", "complete", 1),
    Case("500, it does not count", "submit", "CreateSubmission:status=500", 6, LIST),
    Case("500, it does not count, once", "submit", "CreateSubmission:status=500*1", 6, LIST, short=True),
    Case("503, it counts", "submit", "CreateSubmission:accepted-then=503*1", 0, "it did arrive", "complete", 1),
    Case("500, it counts", "submit", "CreateSubmission:accepted-then=500*1", 0, "it did arrive", "complete", 1,
         short=True),
    Case("no answer, it counts", "submit", "CreateSubmission:accepted-then=cut*1", 0, "it did arrive", "complete", 1),
    Case("no answer, it does not count", "submit", "CreateSubmission:close*1", 6, LIST, short=True),
    Case("502 HTML, it does not count", "submit", "CreateSubmission:html*1", 6, LIST),
    Case("a redirect loop", "submit", "CreateSubmission:loop", 6, LIST),
    *(
        Case(f"the answer is {text or 'nothing'}, it counts", "submit", f"CreateSubmission:body{text and '='}{text}*1",
             0, "it did arrive", "complete", 1)
        for text in ("", "<p>", "[7]", "null", "{}", REFUSED)
    ),
    *(
        Case(f"the ref is {value}, it counts", "submit", f'CreateSubmission:fields={{"ref": {value}}}', 0, "is scored",
             "complete", 1)
        for value in ('"x"', "-5", "0", "null", "true", "1.5", "7", "1" + "0" * 30)
    ),
    Case("the ref is a stranger's, it counts", "submit",
         ways.named_after_a_strangers('CreateSubmission:fields={"ref": 90000001}'), 0, "ref 90000002 is scored",
         "complete", 1, short=True),
    Case("the ref is a stranger's, it does not count", "submit",
         ways.named_after_a_strangers('CreateSubmission:body={"ref": 90000001}'), 0, "is scored", "complete", 1),
    Case("the ref is another team's", "submit", ways.named_after_another_teams, 6, "Kaggle's list first", sent=1,
         short=True),
    Case("GetSubmission fails", "submit", "GetSubmission:status=500", 6, "ref 90000001 was accepted", sent=1),
    Case("GetSubmission answers no JSON", "submit", "GetSubmission:body=<p>", 6, LATER, sent=1),
    Case("GetSubmission answers nothing", "submit", "GetSubmission:body", 6, LATER, sent=1),
    Case("GetSubmission answers another ref's", "submit", ways.named_after_a_strangers(
         'GetSubmission:fields={"ref": 90000001, "publicScore": "0.99"}'), 6, "when asked for 90000002", sent=1,
         short=True),
    Case("GetSubmission answers another's", "submit",
         'GetSubmission:fields={"description": "theirs", "publicScore": "0.99"}', 0, "is scored", "complete", 1),
    *(
        Case(f"a score of {value}", "submit", f'GetSubmission:fields={{"publicScore": {value}, "privateScore": ""}}', 0,
             "no score is shown", "unscored", 1, short=value == '"nan"')
        for value in ('"nan"', '"inf"', '"1e999"', '"-3"', '"17"', "1e30", "[]", '"good"')
    ),
    Case("PENDING for long", "submit", 'GetSubmission:fields={"status": "PENDING"}', 6, "python -m pipeline.check",
         sent=1, waiting=0.5),
    Case("PENDING for long, as a command", "submit", 'GetSubmission:fields={"status": "PENDING"}', 6,
         "python -m pipeline.check", sent=1, command=("--wait", 1, "--poll", 0.2), short=True),
    Case("404 for long", "submit", "GetSubmission:status=404", 6, "python -m pipeline.check", sent=1, waiting=0.5),
    Case("scored ERROR", "submit", ways.scored_error, 8, "required key values", "unscored", 1, again=8, short=True),
    Case("402 submissions, ours on the last page", "submit", ways.on_the_last_page, 0, "not sending it twice",
         "complete", 1, short=True),
    Case("submitted by hand before", "submit", ways.by_hand_before, 0, "not sending it twice", "complete", 1,
         short=True),
    Case("another by hand meanwhile", "submit", ways.by_hand_meanwhile, 0, "as ref 90000001", "complete", 1),
    Case("of unknown origin, the ledger is lost", "submit", ways.of_unknown_origin, 0, "not sending it twice",
         "unscored", 1, short=True),
    Case("our clock is a day ahead", "submit", ways.clock_off(-ways.DAY), 0, "is scored", "complete", 1, short=True),
    Case("our clock is a day behind", "submit", ways.clock_off(ways.DAY), 0, "is scored", "complete", 1),
    Case("two runs at once", "submit", ways.two_submits, 2, "another run is at work on", "complete", 1, short=True),
    Case("no space for the ledger", "submit", ways.no_space_to_note(sent=False), 1, SPACE),
    Case("no space for the ledger, after sending", "submit", ways.no_space_to_note(sent=True), 1, SPACE,
         sent=1, short=True),
    Case("a read-only folder", "submit", ways.read_only("submit"), 1, PERMISSIONS, short=True),
)  # fmt: skip

CHECK: Sequence[Case] = (
    Case("401", "check", "ListSubmissions:status=401", 5, SETTINGS, command=("--wait", 0), short=True),
    Case("403", "check", "ListSubmissions:status=403", 5, RULES),
    Case("500", "check", "ListSubmissions:status=500", 6, BUSY, short=True),
    Case("502 HTML", "check", "ListSubmissions:html", 6, BUSY),
    Case("no JSON", "check", "ListSubmissions:body=<p>", 6, LATER),
    Case("an empty body", "check", "ListSubmissions:body", 6, LATER, short=True),
    Case("a list of something else", "check", 'ListSubmissions:fields={"submissions": [7]}', 6, LATER),
    Case("a list that never ends", "check", f"ListSubmissions:{ENDING}", 6, LATER),
    Case("an empty list", "check", 'ListSubmissions:fields={"submissions": []}', 0, "", "complete"),
    Case("closed at once", "check", "ListSubmissions:close", 6, NETWORK),
    Case("nobody listens", "check", lambda here: ways.nobody_listens(here, "check"), 6, NETWORK, short=True),
    Case("it hangs", "check", "ListSubmissions:hang=60", 6, NO_ANSWER, client=IMPATIENT),
)  # fmt: skip

CASES: Sequence[Case] = (*DOWNLOAD, *SUBMIT, *CHECK)


def every_case() -> Sequence[Case]:
    """The long form: all rows."""
    return CASES


def run_case(case: Case, folder: Path) -> None:
    """One row, in the new folder `folder`.

    Raises:
        AssertionError: with the row's name, if anything is not as the table says.
        CannotProvoke: this machine does not let us.
    """
    run_cases([case], folder)
