"""How Kaggle can misbehave, in one table: what the user is told, what is left, and what the next run makes of it."""

from collections.abc import Mapping, Sequence

from tests.hostile import kaggle_ways as ways
from tests.hostile.kaggle_place import Case, Stage

TWICE = {"attempts": 2}
IMPATIENT = {"timeout": 3.0, "upload_timeout": 3.0}  # towards a Kaggle that hangs
SETTINGS = "https://www.kaggle.com/settings"
RULES = "accept its rules at https://www.kaggle.com/competitions/tiny/rules"
SPELLED, BUSY, LATER = "is --competition tiny spelled right?", "try again later", "pip install -U kaggle"
NETWORK, NEW_LINK, LIST = "check the network and run again", "run again, for a new link", "it looks there first"
REFUSED = '{"code": 500, "message": "inside"}'  # with status 200


def _lists(name: str, size: str) -> str:
    return f'ListDataFiles:fields={{"files": [{{"name": {name}, "totalBytes": {size}}}]}}'


_DOWNLOAD = (
    Case("401", "ListDataFiles:status=401", 5, SETTINGS),
    Case("a token that is valid no more", ways.inactive_token, 5, SETTINGS),
    Case("a token that nobody can read", ways.unreadable_token, 5, SETTINGS),
    Case("403, rules not accepted", "ListDataFiles:status=403", 5, RULES),
    Case("404, no such competition", "ListDataFiles:status=404", 2, SPELLED),
    Case("429 without Retry-After", "ListDataFiles:status=429,retry=none", 6, BUSY),
    Case("429 once", "ListDataFiles:status=429,retry=0*1", 0, "trying again in 0 s", "complete", client=TWICE),
    Case("500", "ListDataFiles:status=500", 6, "busy or down (500"),
    Case("500 with status 200", f"ListDataFiles:body={REFUSED}", 6, "busy or down (500"),
    Case("502 HTML", "ListDataFiles:html", 6, "busy or down (502"),
    Case("an expired link", "Download:status=403", 6, NEW_LINK),
    Case("a link expires midway", ways.link_expires_midway, 0, "trying again", "complete", client={"attempts": 3}),
    Case("cut at each third", "DownloadDataFiles:cut=1500000", 0, "going on after", "complete"),
    Case("cut at once, always", "DownloadDataFiles:cut=0", 6, NETWORK),
    Case("half of it, as if that were all", "DownloadDataFiles:truncate", 4, "zip"),
    Case("a flipped byte", "DownloadDataFiles:flip", 4, "ballast.bin"),
    Case("a flipped byte, once", "DownloadDataFiles:flip*1", 0, "downloading once more", "complete"),
    Case("another size is listed", _lists('"cifar_test_nolabel.pkl"', "5"), 4, "Kaggle lists 5"),
    Case("a file is missing", _lists('"gone.bin"', "5"), 4, "gone.bin, which did not come"),
    Case("a huge size", _lists('"ballast.bin"', "4" * 18), 1, "free space"),
    Case("a size without sense", _lists('"ballast.bin"', "1" + "0" * 30), 6, LATER),
    Case("another JSON", "ListDataFiles:body=[7]", 6, LATER),
    Case("no redirect to a file", "DownloadDataFiles:body={}", 6, "left no file: run again"),
    Case("a redirect loop", "DownloadDataFiles:loop", 6, LATER),
    Case("a list that never ends", 'ListDataFiles:fields={"nextPageToken": "1"}', 6, LATER),
    Case("the file is closed at once", "Download:close", 6, NETWORK),
    Case("nobody listens", ways.nobody_listens("download"), 6, NETWORK),
    Case("the list hangs", "ListDataFiles:hang=60", 6, "did not answer within 3 s", client=IMPATIENT),
    Case("the file hangs", "Download:hang=60", 6, "stalled for 3 s: run again to resume it", client=IMPATIENT),
    Case("two runs at once", ways.two_downloads, 2, "another run is at work on"),
    Case("no space for the archive", ways.no_space, 1, "free space"),
)

_SUBMIT = (
    Case("500 before sending", "ListSubmissions:status=500", 6, BUSY),
    Case("an unknown status", 'ListSubmissions:fields={"submissions": [{"ref": 1, "status": "ODD"}]}', 6, LATER),
    Case("another JSON", "ListSubmissions:body=[7]", 6, LATER),
    Case("a negative limit", 'GetSubmissionLimits:fields={"numAllowedNow": -1}', 6, LATER),
    Case("the day's limit", 'GetSubmissionLimits:fields={"numToday": 9, "numTotal": 9, "numAllowedNow": 0}', 7,
         "00:00 UTC"),
    Case("the competition's limit",
         'GetSubmissionLimits:fields={"numTotal": 9, "numAllowedNow": 0, "limitedByTotal": true}', 7, "takes no more"),
    Case("refused at the limit", ways.refused_at_the_limit, 7, "00:00 UTC"),
    Case("nobody listens", ways.nobody_listens("submit"), 6, NETWORK),
    Case("the upload cannot begin", "StartSubmissionUpload:status=500", 6, BUSY),
    Case("the upload leads nowhere", "StartSubmissionUpload:body={}", 6, NETWORK),
    Case("400 for the upload", "Upload:status=400", 6, NETWORK),
    Case("503 for the upload, once", "Upload:status=503*1", 0, "is scored", "complete", 1),
    Case("the upload hangs", "Upload:hang=60", 6, LIST, client=IMPATIENT),
    Case("refused", "CreateSubmission:status=400", 4, "Kaggle refused the request (400"),
    Case("429 at the end", "CreateSubmission:status=429,retry=0", 6, BUSY),
    Case("429 at the end, once", "CreateSubmission:status=429,retry=1*1", 0, "is scored", "complete", 1),
    Case("500, it does not count, once", "CreateSubmission:status=500*1", 6, LIST),
    Case("500, it counts", "CreateSubmission:accepted-then=500*1", 0, "it did arrive", "complete", 1),
    Case("no answer, it counts", "CreateSubmission:accepted-then=cut*1", 0, "it did arrive", "complete", 1),
    Case("no answer, it does not count", "CreateSubmission:close*1", 6, LIST),
    Case("it hangs, then it counts", ways.arrives_after_the_last_look, 6, LIST, sent=1, client=IMPATIENT),
    *(
        Case(f"the answer is {text}, it counts", f"CreateSubmission:body={text}*1", 0, "it did arrive", "complete", 1)
        for text in ("<p>", "{}", REFUSED)
    ),
    *(
        Case(f"the ref is {value}, it counts", f'CreateSubmission:fields={{"ref": {value}}}', 0, "is scored",
             "complete", 1)
        for value in ('"x"', "0", "1.5")
    ),
    Case("the ref is a stranger's, it counts", ways.beside_a_strangers('CreateSubmission:fields={"ref": 90000001}'), 0,
         "ref 90000002 is scored", "complete", 1),
    Case("the ref is a stranger's, it does not count",
         ways.beside_a_strangers('CreateSubmission:body={"ref": 90000001}'), 0, "is scored", "complete", 1),
    Case("the ref is another team's, the list is late", (
        'CreateSubmission:fields={"ref": 77}', 'ListSubmissions:fields={"submissions": []}*2',
        'GetSubmission:body={"ref": 77, "description": "theirs", "status": "COMPLETE", "publicScore": "0.99000"}',
    ), 6, "Kaggle's list first", sent=1),
    Case("the list fails after it was taken", ("ListSubmissions:fields={}*1", "ListSubmissions:status=500"), 6,
         "as ref 90000001", sent=1),
    Case("GetSubmission fails", "GetSubmission:status=500", 6, "ref 90000001 was accepted", sent=1),
    Case("GetSubmission answers another ref's",
         ways.beside_a_strangers('GetSubmission:fields={"ref": 90000001, "publicScore": "0.99"}'), 6,
         "when asked for 90000002", sent=1),
    Case("GetSubmission answers another's", 'GetSubmission:fields={"description": "theirs", "publicScore": "0.99"}', 0,
         "is scored", "complete", 1),
    *(
        Case(f"a score of {value}", f'GetSubmission:fields={{"publicScore": {value}, "privateScore": ""}}', 0,
             "no score is shown", "unscored", 1)
        for value in ('"nan"', "17")
    ),
    Case("PENDING for long", 'GetSubmission:fields={"status": "PENDING"}', 6, "python -m pipeline.check", sent=1,
         waiting=0.5),
    Case("404 for long", "GetSubmission:status=404", 6, "python -m pipeline.check", sent=1, waiting=0.5),
    Case("scored ERROR", ways.scored_error, 8, "required key values", "unscored", 1, again=8),
    Case("402 submissions, ours on the last page", ways.on_the_last_page, 0, "not sending it twice", "complete", 1),
    Case("submitted by hand before", ways.by_hand_before, 0, "not sending it twice", "complete", 1),
    Case("another by hand meanwhile", ways.by_hand_meanwhile, 0, "as ref 90000001", "complete", 1),
    Case("of unknown origin, the ledger is lost", ways.of_unknown_origin, 0, "not sending it twice", "unscored", 1),
    Case("our clock is a day ahead", ways.clock_off(-ways.DAY), 0, "is scored", "complete", 1),
    Case("our clock is a day behind", ways.clock_off(ways.DAY), 0, "is scored", "complete", 1),
    Case("two runs at once", ways.two_submits, 2, "another run is at work on", "complete", 1),
    Case("no space for the ledger after sending", ways.no_space_after_sending, 1, "free space", sent=1),
)  # fmt: skip

_CHECK = (
    Case("500", "ListSubmissions:status=500", 6, BUSY),
    Case("a list of something else", 'ListSubmissions:fields={"submissions": [7]}', 6, LATER),
    Case("a list that never ends", 'ListSubmissions:fields={"nextPageToken": "1"}', 6, LATER),
)

CASES: Mapping[Stage, Sequence[Case]] = {"download": _DOWNLOAD, "submit": _SUBMIT, "check": _CHECK}
