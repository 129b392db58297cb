"""The doubles that other tests rely on; that each kind of fault strikes, the tests show which need it."""

import contextlib
import http.client
import threading
import time
from pathlib import Path

import pytest

from tests.doubles.faults import ANSWERS, Fault, Faults, parse
from tests.doubles.kaggle import faulty_kaggle
from tests.rehearsal.plain_http import call, make_folder


def test_a_fault_is_read_and_strikes_as_often_as_it_says() -> None:
    assert parse("Upload:cut=10*3") == Fault("Upload", "cut", "10", 3)
    assert parse('ListSubmissions:fields={"ref": 7}*1') == Fault("ListSubmissions", "fields", '{"ref": 7}', 1)
    with pytest.raises(ValueError, match="not a fault: Upload:explode"):
        parse("Upload:explode")
    faults = Faults(["Upload:status=500*2", "Upload:html*1", "Upload:flip"])
    taken = [faults.take(("Upload",), ANSWERS) for _ in range(4)]
    assert [fault.kind if fault else None for fault in taken] == ["status", "status", "html", None]


def test_stopping_ends_what_hangs(tmp_path: Path) -> None:
    def quietly() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            call(kaggle, "ListDataFiles")

    hangs = ["ListDataFiles:hang=60"]
    with faulty_kaggle(make_folder(tmp_path), tmp_path / "state", faults=hangs, environ={}) as kaggle:
        hanging = threading.Thread(target=quietly)
        hanging.start()
        while not kaggle.calls:
            time.sleep(0.02)
        begin = time.monotonic()
    assert time.monotonic() - begin < 5
    hanging.join(5)
    assert not hanging.is_alive()
