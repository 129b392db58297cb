"""Faults: their grammar, and how often they strike.  The damage itself is tested in test_rehearsal_server."""

import pytest

from pipeline.errors import UsageError
from pipeline.rehearsal.faults import ANSWERS, CONTENT, Fault, Faults, parse


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("ListDataFiles:status=500*2", Fault("ListDataFiles", "status", 500, None, 2)),
        ("ListDataFiles:status=429", Fault("ListDataFiles", "status", 429, 1.0)),
        ("ListDataFiles:status=429,retry=2.5", Fault("ListDataFiles", "status", 429, 2.5)),
        ("CreateSubmission:accepted-then=500", Fault("CreateSubmission", "accepted-then", 500)),
        ("CreateSubmission:accepted-then=cut*1", Fault("CreateSubmission", "accepted-then", None, None, 1)),
        ("Upload:cut=10", Fault("Upload", "cut", 10)),
        ("Download:flip", Fault("Download", "flip")),
        ("Download:truncate=7", Fault("Download", "truncate", 7)),
        ("GetSubmission:html", Fault("GetSubmission", "html")),
        ("GetSubmission:hang=0.5", Fault("GetSubmission", "hang", 0.5)),
        ("ListDataFiles:status=429,retry=none", Fault("ListDataFiles", "status", 429)),
        ("Upload:close*2", Fault("Upload", "close", times=2)),
        ("DownloadDataFiles:loop", Fault("DownloadDataFiles", "loop")),
        ("ListDataFiles:body*1", Fault("ListDataFiles", "body", times=1)),
        ("ListDataFiles:body=<p> 1", Fault("ListDataFiles", "body", text="<p> 1")),
        ('GetSubmission:fields={"ref": 7}*1', Fault("GetSubmission", "fields", times=1, text='{"ref": 7}')),
    ],
)
def test_parse(spec: str, fault: Fault) -> None:
    assert parse(spec) == fault


@pytest.mark.parametrize(
    ("spec", "cure"),
    [
        ("nonsense", "write CALL:KIND[=ARG][*TIMES], for example"),
        ("Nonsense:html", "there are ListDataFiles,"),
        ("Download:explode", "there are accepted-then, body, close, cut,"),
        ("Download:cut", "cut wants an argument"),
        ("Download:cut=many", "'many' is no number"),
        ("Download:html=1", "html takes no argument"),
        ("ListDataFiles:status=200", "a status from 400 to 599"),
        ("ListDataFiles:hang=1,retry=2", "only status takes a retry"),
        ("ListDataFiles:close=1", "close takes no argument"),
        ("ListDataFiles:fields", "fields wants an argument"),
        ("ListDataFiles:fields=[1]", "fields wants a JSON object, for example"),
        ("ListDataFiles:fields={1}", "fields wants a JSON object, for example"),
    ],
)
def test_parse_names_the_cure(spec: str, cure: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(spec)
    assert cure in str(caught.value)
    assert spec in str(caught.value)


def test_take_counts_down_and_then_is_silent() -> None:
    faults = Faults([parse("Upload:status=500*2"), parse("Upload:html*1"), parse("Download:flip")])
    taken = [faults.take(("Upload",), ANSWERS) for _ in range(4)]
    assert [fault.kind if fault else None for fault in taken] == ["status", "status", "html", None]
    assert all(faults.take(("Download", "DownloadDataFiles"), CONTENT) for _ in range(3))
    assert faults.take(("Download",), ANSWERS) is None
