from __future__ import annotations

import copy
import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiment import plan
from jellyfish.errors import DataError
from jellyfish.files.problems import plan_as_json, problem_from_json
from jellyfish.scheduling.problem import GpuPlan, Plan, check
from jellyfish.scheduling.solvers import SOLVERS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE: dict[str, Any] = {
    "gpus": 2,
    "initial_dnns": [0, 1],
    "profile": {
        "input_px": [128, 320],
        "frame_bytes": [10_000, 47_000],
        "accuracy": [0.33, 0.55],
        "latency_ms": [[11, 12, 13], [17, 23, 29]],
    },
    "clients": [
        {"fps": 25, "slo_ms": 100, "bandwidth_kbps": 20_000},
        {"fps": 29.97, "slo_ms": 150, "bandwidth_kbps": 40_000, "wire_ms": 1},
        {"fps": 15, "slo_ms": 5, "bandwidth_kbps": 20_000},
    ],
    "overhead_ms": 2,
    "response_bytes": 300,
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the example with the value at `path`, keys and indices by dots, replaced."""
    found = copy.deepcopy(EXAMPLE)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    node: Any = found
    for key in parents:
        node = node[key]
    node[last] = value
    return found


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[Any], str]:
    status = plan.main(arguments)
    out, err = capsys.readouterr()
    return status, [json.loads(line) for line in out.splitlines()], err


@pytest.fixture
def example(tmp_path: Path) -> str:
    path = tmp_path / "problem.json"
    path.write_text(json.dumps(EXAMPLE, indent=2))
    return str(path)


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_answers_in_the_format(
    name: str, example: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, [answer], _ = run(capsys, example, "--solver", name, "--time-limit-ms", "500")
    assert status == 0
    keys = ["gpus", "clients", "effectiveness", "accuracy", "bound", "solve_ms"]
    assert list(answer) == keys
    gpus = tuple(gpu and GpuPlan(gpu["dnn"], gpu["batch"]) for gpu in answer["gpus"])
    offered = Plan(gpus, tuple(answer["clients"]), answer["effectiveness"], answer["accuracy"])
    assert check(problem_from_json(EXAMPLE), offered) == offered
    assert answer["clients"][2] is None
    assert answer["solve_ms"] > 0
    if name == "optimum":
        assert answer["bound"] == pytest.approx(answer["accuracy"])
        assert answer["accuracy"] == pytest.approx(0.55)
        assert answer["effectiveness"] == 1.0


def test_lines_in_lines_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps(EXAMPLE), "", "{", json.dumps(changed("gpus", -1)), json.dumps(EXAMPLE)]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    status, answers, err = run(capsys, "--solver", "paper", "--seed", "3")
    assert status == 1
    assert [sorted(answer)[0] for answer in answers] == ["accuracy", "error", "error", "accuracy"]
    assert "line 3: no JSON" in err
    assert "line 4: gpus: want a number that is not negative" in err


def test_a_file_that_is_no_problem_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.json"
    path.write_text("")
    status, answers, err = run(capsys, str(path))
    assert (status, answers) == (1, [])
    assert "bad.json: no JSON" in err
    with pytest.raises(SystemExit, match="absent"):
        plan.main([str(tmp_path / "absent.json")])


def test_lines_in_a_file_are_told_where_to_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(f"{json.dumps(EXAMPLE)}\n" * 2)
    status, answers, err = run(capsys, str(path))
    assert (status, answers) == (1, [])
    assert "lines.jsonl: no JSON" in err
    assert "lines go to the standard input" in err


def test_a_reader_that_has_enough_ends_it_quietly() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "experiment.plan", "--solver", "paper"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process, process.stdin as problems, process.stdout as plans:
        print(json.dumps(EXAMPLE), file=problems, flush=True)
        assert json.loads(plans.readline())["effectiveness"] > 0
        plans.close()
        print(json.dumps(EXAMPLE), file=problems, flush=True)
        assert process.stderr.read() == ""
    assert process.returncode == -signal.SIGPIPE


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "soon"])
def test_a_time_limit_must_be_one(limit: str, example: str) -> None:
    with pytest.raises(SystemExit):
        plan.main([example, f"--time-limit-ms={limit}"])


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("gpus", -1, "gpus: want a number that is not negative"),
        ("gpus", 1.5, "gpus: want a whole number"),
        ("gpus", 10**9, "gpus: want a whole number"),
        ("gpus", True, "gpus: want a number"),
        ("gpus", 3, "initial_dnns: 2 DNNs for 3 GPUs"),
        ("initial_dnns.1", 2, r"initial_dnns\[1\]: want a whole number up to 1"),
        ("profile", [], "profile: want an object with input_px"),
        ("profile.accuracy", [], "profile.accuracy is empty"),
        ("profile.accuracy.0", 1.5, "profile: accuracy must lie between 0 and 1"),
        ("profile.input_px", [320, 128], "profile: input_px must be positive and ascending"),
        ("profile.frame_bytes", [1.0], "profile.frame_bytes: 1 values, input_px has 2"),
        ("profile.frame_bytes.1", float("nan"), r"profile.frame_bytes\[1\]: want a number"),
        ("profile.latency_ms", [[1, 2]], "profile.latency_ms: 1 values"),
        ("profile.latency_ms.1", [1, 2], r"profile.latency_ms\[1\]: 2 batch sizes, the first"),
        ("profile.latency_ms.1", [], r"profile.latency_ms\[1\] is empty"),
        ("profile.latency_ms.0.1", 0, r"profile.latency_ms\[0\]\[1\]: .* above 0, not 0"),
        ("clients", {}, "clients: want a list"),
        ("clients.1", 5, r"clients\[1\]: want an object"),
        ("clients.1.fps", float("nan"), r"clients\[1\].fps: .* not nan"),
        ("clients.1.fps", 10**400, r"clients\[1\].fps: want a number"),
        ("clients.0.slo_ms", -5, r"clients\[0\].slo_ms: .* not -5"),
        ("clients.0.slo_ms", "5", r"clients\[0\].slo_ms: want a number"),
        ("clients.0.bandwidth_kbps", None, r"clients\[0\].bandwidth_kbps: .* not None"),
        ("clients.0.wire_ms", float("inf"), r"clients\[0\].wire_ms: .* not inf"),
        ("clients.0.fsp", 5, r"clients\[0\].fsp: no such field"),
        ("overhead_ms", -0.1, "overhead_ms: want"),
        ("response_bytes", [1], "response_bytes: want"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: Any, text: str) -> None:
    with pytest.raises(DataError, match=text):
        problem_from_json(changed(path, value))


def test_nothing_but_plans_is_printed(example: str) -> None:
    command = [sys.executable, "-m", "experiment.plan", example, "--solver", "optimum"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["bound"] == pytest.approx(0.55)


def test_what_is_missing_is_named() -> None:
    for name in ("gpus", "profile", "clients"):
        less = {key: value for key, value in EXAMPLE.items() if key != name}
        with pytest.raises(DataError, match=f"{name} is missing"):
            problem_from_json(less)


def test_defaults_and_the_empty_system() -> None:
    small = {key: EXAMPLE[key] for key in ("gpus", "profile", "clients")}
    asked = problem_from_json(small)
    assert asked.initial_dnns == ()
    assert asked.overhead_ms == 0
    assert asked.wire_ms.tolist() == [0, 1, 0]
    nobody = problem_from_json(small | {"gpus": 0, "clients": []})
    assert (nobody.gpus, nobody.clients) == (0, 0)
    for solve in SOLVERS.values():
        assert plan_as_json(solve(nobody, 0), bound=None, solve_ms=0)["clients"] == []


def test_it_runs_by_itself_on_jellyfish_alone(example: str) -> None:
    code = (
        "import sys; from experiment import plan; plan.main(sys.argv[1:]);"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, example], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["effectiveness"] == 1.0
    foreign = {"server", "client", "scripts", "torch", "grpc", "cv2", "pandas", "pyarrow"}
    assert not foreign & set(done.stderr.split())


def test_the_example_of_the_readme_is_planned(capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "config" / "examples" / "problem.json"
    assert plan.main([str(path), "--solver", "optimum"]) == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert found["effectiveness"] == 1
    assert found["accuracy"] == pytest.approx(found["bound"])
