"""``pplc serve`` as a process: what programs send and get, and what must not go wrong."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from helpers.commands import Pplc
from helpers.images import encoded_image, random_image
from helpers.service import serving

pytest.importorskip("fastapi_offline", reason="needs pplc[serve]")


@pytest.fixture(scope="module")
def service(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve 服务")
    with serving(folder, str(trained.run), f"other={trained.run}", "--max-mb", "1", "--collect", "kept 图") as running:
        yield running


@pytest.fixture(scope="module")
def photographs(trained, tmp_path_factory):
    """Some images of the data set under names of their own."""
    folder = tmp_path_factory.mktemp("photographs")
    for number, path in enumerate(sorted(trained.data.rglob("*.jpg"))[::5]):
        shutil.copy(path, folder / f"图 {number}.jpg")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def answers(trained, photographs):
    """What ``pplc predict`` says about the photographs, by their names."""
    pplc = Pplc(trained.folder)
    done = pplc("predict", "--run", str(trained.run), "--json", "--unknown", "--set", "0.9", *map(str, photographs))
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {Path(one.pop("path")).name: one for one in found}


def assert_same(found, expected):
    assert (found["label"], found["unknown"], found["set"]) == (
        expected["label"], expected["unknown"], expected["set"])  # fmt: skip
    np.testing.assert_allclose(found["score"], expected["score"], atol=2e-5)  # another batch size, float32


def test_all_forms_of_a_request_give_what_predict_gives(service, photographs, answers):
    with service.client() as client:
        files = [("files", (path.name, path.read_bytes())) for path in photographs]
        found = client.post("/predict", files=files).json()
        assert found["model"] == "the run"
        assert [one["name"] for one in found["predictions"]] == [path.name for path in photographs]
        for one in found["predictions"]:
            assert_same(one, answers[one["name"]])
        for path in photographs[:4]:
            data = path.read_bytes()
            text = base64.b64encode(data).decode()
            for answer in (
                client.post("/predict", content=data, headers={"Content-Type": "image/jpeg"}),
                client.post("/predict?model=other", content=data),
                client.post("/predict", json={"image": text}),
                client.post("/predict", json={"images": [f"data:image/jpeg;base64,{text}"], "model": "other"}),
            ):
                assert answer.status_code == 200
                (one,) = answer.json()["predictions"]
                assert_same(one, answers[path.name])
                assert len(one["top"]) == 2


def test_the_number_of_labels_and_unreadable_images(service, photographs):
    data = photographs[0].read_bytes()
    with service.client() as client:
        (one,) = client.post("/predict?top_k=1", content=data).json()["predictions"]
        assert len(one["top"]) == 1
        both = client.post("/predict", files=[("files", ("a.jpg", data)), ("files", ("b.jpg", data[:200]))])
        assert both.status_code == 200
        good, bad = both.json()["predictions"]
        assert "label" in good and bad == {"name": "b.jpg", "error": bad["error"]} and "broken" in bad["error"]


@pytest.mark.parametrize(
    ("status", "request_", "reason"),
    [
        (422, {"content": b"no image", "headers": {"Content-Type": "image/png"}}, "is not an image but text"),
        (400, {"content": b""}, "the request holds no image"),
        (400, {"json": {"image": "?"}}, "an image is not valid base64"),
        (400, {"json": {"images": "abc"}}, "expected the image as a base64 text in image, or a list of them in images"),
        (400, {"json": [1]}, "expected a JSON object"),
        (400, {"content": b"{", "headers": {"Content-Type": "application/json"}}, "the body is not valid JSON"),
        (400, {"content": b"x", "headers": {"Content-Type": "text/html"}},
         "expected an image, multipart/form-data or application/json, got 'text/html'"),
        (400, {"json": {"image": "http://127.0.0.1/x.jpg"}},
         "addresses are not fetched; start pplc serve with --allow-urls"),
        (400, {"content": b"x", "params": {"top_k": "0"}}, "top_k: expected a whole number from 1, got '0'"),
        (404, {"content": b"x", "params": {"model": "the runn"}},
         "no model 'the runn': served are the run, other; did you mean the run?"),
        (413, {"content": bytes(1_000_001)}, "the body is larger than 1 MB (--max-mb)"),
    ],
)  # fmt: skip
def test_wrong_requests_get_one_clear_line(service, status, request_, reason):
    with service.client() as client:
        answer = client.post("/predict", **request_)
        assert (answer.status_code, answer.json()) == (status, {"error": reason})


def test_a_body_without_a_length_is_bounded_too(service):
    with service.client() as client:
        answer = client.post("/predict", content=(bytes(100_000) for _ in range(11)))  # chunked
        assert answer.status_code == 413


def test_too_many_images_in_one_request(service):
    with service.client() as client:
        answer = client.post("/predict", json={"images": ["eA=="] * 65})
        assert answer.json() == {"error": "65 images in one request; expected at most 64"}
        assert client.post("/predict", files=[("files", ("x", b"x"))] * 65).status_code == 400


def test_a_client_of_paddlex_works_unchanged(service, photographs, answers):
    """The fields and types are those of PaddleX's own schema."""
    try:
        from paddlex.inference.serving.schemas import image_classification as schema
    except (ImportError, RuntimeError) as error:  # PaddleX raises a RuntimeError of its own
        pytest.skip(f"needs paddlex[serving]: {error}")
    path = photographs[0]
    body = schema.InferRequest(image=base64.b64encode(path.read_bytes()).decode(), topk=2)
    with service.client() as client:
        answer = client.post("/image-classification", json=body.model_dump())
        assert answer.status_code == 200
        content = answer.json()
        assert content.keys() == {"logId", "result", "errorCode", "errorMsg"}
        assert (content["errorCode"], content["errorMsg"]) == (0, "Success")
        result = schema.InferResult(**content["result"])
        assert [one.id for one in result.categories] in ([0, 1], [1, 0])
        assert result.categories[0].name == answers[path.name]["top"][0]["label"]
        assert result.image is not None and base64.b64decode(result.image).startswith(b"\xff\xd8")
        plain = client.post("/image-classification", json={**body.model_dump(), "visualize": False, "topk": 1}).json()
        assert plain["result"]["image"] is None and len(plain["result"]["categories"]) == 1
        wrong = client.post("/image-classification", json={"image": "eA==", "topk": 1})
        assert wrong.status_code == 422 and wrong.json()["errorCode"] == 422
        for bad in ({"image": 3}, {"image": "eA==", "topk": 0}, {"image": "eA==", "visualize": 1}, [], {}):
            assert client.post("/image-classification", json=bad).status_code == 422


def test_models_metrics_and_health(service, trained, photographs):
    record = json.loads((trained.run / "inference_model" / "pplc.json").read_text("utf-8"))
    with service.client() as client:
        found = client.get("/models").json()
        first, second = found["models"]
        assert (first["name"], second["name"], found["collect"]) == ("the run", "other", True)
        assert first["sha256"] == record["weights"] and first["network"] == "PPLCNet_x0_25"
        assert sorted(first["labels"]) == ["dog", "猫 cat"] and 0 < first["val_top1"] <= 1
        client.post("/predict", content=photographs[0].read_bytes())
        client.get("/a-path-that-does-not-exist")
        text = client.get("/metrics").text
        assert 'pplc_requests_total{route="/predict",status="200"}' in text
        assert 'route="other",status="404"' in text and "does-not-exist" not in text
        assert "pplc_request_seconds_bucket" in text and "pplc_batch_images_count" in text
        assert "pplc_queue_images 0.0" in text and 'pplc_images_total{model="the run",result="predicted"}' in text
        assert client.get("/healthz").text == "ok\n" and client.get("/readyz").text == "ready\n"


def test_the_description_of_the_interface_is_local(service):
    with service.client() as client:
        page = client.get("/docs").text
        assert "http://" not in page and "https://" not in page
        for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
            assert f"/static-offline-docs/{name}" in page
            assert client.get(f"/static-offline-docs/{name}").status_code == 200
        paths = client.get("/openapi.json").json()["paths"]
        assert {"/predict", "/image-classification", "/models", "/reload", "/correct", "/explain"} <= paths.keys()


def test_heat_maps(service, photographs, answers):
    path = photographs[0]
    with service.client() as client:
        answer = client.post("/explain", content=path.read_bytes())
        assert answer.status_code == 200 and answer.content.startswith(b"\xff\xd8")
        label = answer.headers["x-label"].encode().decode("unicode_escape")
        assert label == answers[path.name]["top"][0]["label"]
        wrong = client.post("/explain?label=horse", content=path.read_bytes())
        assert wrong.status_code == 409 and "horse" in wrong.json()["error"]


def test_corrections_are_kept_once_and_trained_on(service, trained, tmp_path):
    data = [encoded_image(random_image(7000 + number), ".png") for number in range(2)]
    folder = service.log.parent / "kept 图"
    with service.client() as client:
        for label in ("dog", " 猫 cat ", "猫 cat"):
            answer = client.post("/correct", files={"files": ("../../x.jpg", data[0])}, data={"label": label})
            assert answer.status_code == 200 and answer.json()["new_class"] is False
        client.post("/correct", files={"files": ("b.png", data[1])}, data={"label": "dog"})
        files = sorted((folder / "images").iterdir())
        assert [file.suffix for file in files] == [".png", ".png"]
        assert sorted(file.read_bytes() for file in files) == sorted(data)
        lines = (folder / "list.csv").read_text("utf-8").splitlines()
        assert lines[0] == "path,label" and sorted(line.split(",")[1] for line in lines[1:]) == ["dog", "猫 cat"]
        for label, status in (("", 400), (" ", 409), ("a\nb", 409), ("x" * 101, 409)):
            answer = client.post("/correct", params={"label": label} if label else {}, content=data[0])
            assert answer.status_code == status
        broken = client.post("/correct?label=dog", content=b"no image")
        assert broken.status_code == 422
        assert len(list((folder / "images").iterdir())) == 2
    args = [*trained.args[:-1], str(tmp_path / "again"), "-o", "train.epochs=1"]
    done = Pplc(tmp_path)("train", *args, "-o", f"data.extra_list={folder / 'list.csv'}")
    assert "best epoch" in done.stdout


def test_a_new_class_is_said(service):
    with service.client() as client:
        answer = client.post("/correct?label=<b>zebra</b>", content=encoded_image(random_image(7100), ".jpg"))
        assert answer.json()["new_class"] is True
        client.post("/correct?label=dog", content=encoded_image(random_image(7100), ".jpg"))  # for the other tests


def test_nothing_is_kept_without_collect(trained, tmp_path, photographs):
    with serving(tmp_path, str(trained.run / "inference_model")) as running, running.client() as client:
        answer = client.post("/correct?label=dog", content=photographs[0].read_bytes())
        assert answer.status_code == 409 and "--collect" in answer.json()["error"]
        assert client.get("/models").json()["models"][0]["name"] == "the run"
        heat = client.post("/explain", content=photographs[0].read_bytes())
        assert heat.status_code == 409 and "heat maps need the training run" in heat.json()["error"]
        assert [path for path in tmp_path.iterdir() if path != running.log] == []
        assert running.stop(signal.SIGINT) == 0


def test_the_token_is_asked_of_all_but_the_page_and_health(trained, tmp_path, photographs):
    data = photographs[0].read_bytes()
    with serving(tmp_path, str(trained.run), env={"PPLC_TOKEN": "geheim ü"}) as running, running.client() as client:
        for path in ("/", "/page/page.js", "/healthz", "/readyz"):
            assert client.get(path).status_code == 200
        for path in ("/models", "/metrics", "/openapi.json", "/docs"):
            assert client.get(path).status_code == 401
        for given in ({}, {"Authorization": "Bearer geheim"}, {"Authorization": "Basic geheim ü".encode()},
                      {"Authorization": b"Bearer \xff\xfe"}, {"Authorization": "Bearer"}):  # fmt: skip
            answer = client.post("/predict", content=data, headers=given)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert "geheim" not in answer.text
        right = {"Authorization": "Bearer geheim ü".encode()}
        assert client.post("/predict", content=data, headers=right).status_code == 200
        assert "geheim" not in running.log.read_text("utf-8")


def test_requests_of_other_sites_are_refused(service, photographs):
    data = photographs[0].read_bytes()
    own = f"127.0.0.1:{service.port}"
    with service.client() as client:
        for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                        {"Host": "evil.example"}, {"Host": f"evil.example:{own}"}, {"Host": "[::1"}):  # fmt: skip
            assert client.post("/predict", content=data, headers=headers).status_code == 403
        for headers in ({"Origin": f"http://{own}"}, {"Host": "localhost"}, {"Sec-Fetch-Site": "same-origin"}):
            assert client.post("/predict", content=data, headers=headers).status_code == 200
        policy = client.get("/").headers["content-security-policy"]
        assert "script-src 'self'" in policy and "unsafe" not in policy


def test_addresses_lead_to_the_public_internet_only(trained, tmp_path, server):
    with serving(tmp_path, str(trained.run), "--allow-urls") as running, running.client() as client:
        for url in (server.url("x.jpg"), "http://localhost:1/x.jpg", "http://169.254.169.254/latest", "http://[::1]/x",
                    "http://0.0.0.0/x", "http://[::ffff:127.0.0.1]/x.jpg"):  # fmt: skip
            answer = client.post("/predict", json={"image": url})
            assert answer.status_code == 422
            assert not answer.json()["error"].startswith("is not an image"), url
        assert server.asked == []
        answer = client.post("/predict", json={"image": "file:///etc/passwd"})
        assert answer.status_code == 400


def test_paths_in_addresses_stay_in_the_page(service):
    for path in (b"/page/../models.py", b"/page/%2e%2e/models.py", b"/page/..%2fmodels.py", b"/page//etc/passwd"):
        with socket.create_connection(("127.0.0.1", service.port)) as raw:
            raw.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
            assert b" 404 " in answer.split(b"\r\n")[0], path


def test_many_clients_get_their_own_answers(service, photographs, answers):
    def client(number: int) -> int:
        rng = np.random.default_rng()
        with service.client() as client:
            for _ in range(30):
                path = photographs[rng.integers(len(photographs))]
                (one,) = client.post("/predict", content=path.read_bytes()).json()["predictions"]
                assert_same(one, answers[path.name])
        return number

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(client, range(16))) == list(range(16))


def test_a_full_queue_answers_503(trained, tmp_path):
    large = encoded_image(random_image(1, (3000, 4000)), ".png")  # takes long to decode
    words = ("--queue", "1", "--workers", "1", "--max-batch", "1", "--max-mb", "100")
    with serving(tmp_path, str(trained.run), *words) as running:

        def ask(_: int) -> tuple[int, str]:
            with running.client() as client:
                answer = client.post("/predict", content=large)
                return answer.status_code, answer.headers.get("retry-after", "")

        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(ask, range(12)))
        assert set(found) == {(200, ""), (503, "1")}


def test_a_stopping_server_answers_what_it_accepted(trained, tmp_path):
    large = encoded_image(random_image(2, (2000, 2000)), ".png")
    statuses = []
    with serving(tmp_path, str(trained.run), "--max-mb", "100") as running:

        def ask() -> None:
            with running.client() as client:
                statuses.append(client.post("/predict", content=large).status_code)

        clients = [threading.Thread(target=ask) for _ in range(6)]
        for thread in clients:
            thread.start()
        with running.client() as client:
            while "pplc_queue_images 0.0" in client.get("/metrics").text:
                time.sleep(0.01)
        assert running.stop() == 0
        for thread in clients:
            thread.join(60)
    assert statuses == [200] * 6


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_a_new_export_is_taken_without_losing_a_request(trained, tmp_path):
    run = tmp_path / "a run"
    shutil.copytree(trained.run, run)
    pplc, data = Pplc(tmp_path), next(trained.data.rglob("*.jpg")).read_bytes()
    with serving(tmp_path, str(run)) as running, running.client() as client:
        before = client.get("/models").json()["models"][0]["sha256"]
        ended, statuses = threading.Event(), []

        def ask() -> None:
            with running.client() as other:
                while not ended.is_set():
                    statuses.append(other.post("/predict", content=data).status_code)

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for thread in clients:
            thread.start()
        pplc("train", *trained.args[:-1], str(run), "-o", "train.epochs=1", "--force")
        pplc("export", "--run", str(run))
        for _ in range(3):
            assert client.post("/reload").status_code == 200
        after = client.get("/models").json()["models"][0]["sha256"]
        (run / "inference_model" / "inference.yml").write_text("broken", encoding="utf-8")
        failed = client.post("/reload")
        assert failed.status_code == 409 and "inference.yml" in failed.json()["error"]
        running.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while '"event": "reload", "error"' not in running.log.read_text("utf-8"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        ended.set()
        for thread in clients:
            thread.join(60)
    assert after != before
    assert set(statuses) == {200} and len(statuses) > 20


def test_slow_and_silent_connections_do_not_stop_the_service(service, photographs):
    """Each leaves something unfinished."""
    starts = [b"", b"G", b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nabc",
              b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"]  # fmt: skip
    open_ones = []
    for start in starts * 20:
        connection = socket.create_connection(("127.0.0.1", service.port))
        connection.sendall(start)
        open_ones.append(connection)
    with service.client() as client:
        assert client.post("/predict", content=photographs[0].read_bytes()).status_code == 200
    for connection in open_ones:
        connection.close()


def test_slow_connections_are_closed(trained, tmp_path):
    """With limits of half a second in place of 20 and 60."""
    before = "from pplc_cli.serve import security, server; server.HEAD_SECONDS = security.BODY_SECONDS = 0.5"
    head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with serving(tmp_path, str(trained.run), before=before) as running:
        whole = head + b"Content-Length: 9\r\n\r\nab", head + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
        for start in (b"", b"POST /pre", head, *whole):
            with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
                connection.sendall(start)
                answer = b"".join(iter(lambda: connection.recv(4096), b""))  # until it is closed
                assert answer[9:12] == (b"408" if start in whole else b"")


def test_wrong_commands(trained, tmp_path):
    pplc, run = Pplc(tmp_path), str(trained.run)

    def fails(*words: str, env: dict[str, str] | None = None) -> str:
        done = pplc("serve", *words, check=False, env=env)
        assert done.returncode != 0 and "Traceback" not in done.stderr and done.stdout == ""
        return done.stderr.strip().splitlines()[-1]

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert fails(run, "--port", port) == (
            f"Error: 127.0.0.1:{port} is in use by another program; choose another port with --port"
        )
    assert "no such folder" in fails("nothing", "--port", "0") or "no trained run" in fails("nothing", "--port", "0")
    assert "two models are named the run" in fails(run, run, "--port", "0")
    assert "cannot listen on" in fails(run, "--host", "256.1.1.1", "--port", "0")
    assert "--token: expected a text" in fails(run, "--token", "")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert "is a file; expected a folder for --collect" in fails(run, "--port", "0", "--collect", "file")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "list.csv").write_text("my,own,table\n1,2,3\n", encoding="utf-8")
    assert "is no list of pplc serve" in fails(run, "--port", "0", "--collect", "mine")
    # As if the extra was not installed.
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "uvicorn.py").write_text("raise ModuleNotFoundError(name='uvicorn')", encoding="utf-8")
    line = fails(run, "--port", "0", env={"PYTHONPATH": str(tmp_path / "without")})
    assert line == "Error: pplc serve needs the package uvicorn; install it with: pip install 'pplc[serve]'"


def test_the_network_is_warned_of(trained, tmp_path):
    with serving(tmp_path, str(trained.run), "--host", "0.0.0.0") as running:
        assert "anyone who reaches this computer can use the service" in running.log.read_text("utf-8")
    with serving(tmp_path, str(trained.run), "--host", "0.0.0.0", "--token", "x") as running:
        assert "anyone" not in running.log.read_text("utf-8")
