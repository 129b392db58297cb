"""The whole pipeline at Kaggle's own URL, and on real images; the rehearsal is README's first block."""

import json
import os
import shlex
import ssl
from pathlib import Path

import pytest
import trustme

from tests.doubles.kaggle import faulty_kaggle
from tests.hostile.surroundings import shell
from tests.readme import fresh_project, run
from tests.support import SLUG, here, write_download, write_run


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("quick_client")
def test_the_whole_way_at_kaggles_own_url(tmp_path: Path) -> None:
    """https://api.kaggle.com as a user hits it; a proxy leads it here, a throwaway CA vouches for us."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.kaggle.com").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    source = write_download(tmp_path / "source")
    labels = tmp_path / "labels.csv"
    labels.write_text("ID,Labels\n" + "".join(f"{i},{i % 10}\n" for i in range(100, 130)))
    with faulty_kaggle(source, tmp_path / "state", slug=SLUG, labels=labels, tls=tls) as kaggle:
        environ = {
            **kaggle.environment,
            "REQUESTS_CA_BUNDLE": str(tmp_path / "ca.pem"),
            "PIPELINE_COMPETITION": SLUG,
        }
        assert "KAGGLE_API_ENVIRONMENT" not in environ
        assert here("download", cwd=tmp_path, environ=environ).returncode == 0
        assert here("preprocess", cwd=tmp_path, environ=environ).returncode == 0
        write_run(tmp_path)
        assert here("predict", cwd=tmp_path, environ=environ).returncode == 0
        result = shell("$P.submit", tmp_path, **environ)
        assert result.returncode == 0, result.stderr
        checked = json.loads(here("check", "--json", cwd=tmp_path, environ=environ).stdout)
        assert kaggle.calls.count("CreateSubmission") == 1 and kaggle.calls.count("Offline") == 0
    assert checked["run"] == "tiny-run" and checked["public"] is not None


@pytest.mark.skipif(
    "PIPELINE_REAL_DATA" not in os.environ,
    reason="set PIPELINE_REAL_DATA to a folder laid out like the real download to rehearse on it (minutes)",
)
def test_real_images_go_the_whole_way(tmp_path: Path) -> None:
    command = ["./run_all.sh", "--rehearsal", "--data", os.environ["PIPELINE_REAL_DATA"], "--epochs", "1"]
    result = run(shlex.join(command), fresh_project(tmp_path / "project"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "no score" in result.stdout
