from __future__ import annotations

import socket
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from farm.capabilities.worker import GIB
from farm.errors import CannotRun, InvalidInput
from farm.machines.options import (
    check_listen,
    check_price,
    cpu_workers,
    limited,
    node_name,
    parse_bytes,
    parse_limits,
)
from farm.request.options import model_here, parse_fps, parse_size, request_options


@pytest.mark.parametrize(
    ("text", "size"), [("512x512", (512, 512)), (" 640X360 ", (640, 360)), ("16×4096", (16, 4096))]
)
def test_a_size_is_width_and_height(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "512", "512x", "x512", "-8x8", "8x-8", "1e3x1e3", "8.5x8", "9999999x8"])
def test_a_malformed_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^size is .*, expected WIDTHxHEIGHT such as 512x512$") as refused:
        parse_size(text)
    assert refused.value.param == "size"


@pytest.mark.parametrize(
    ("text", "fps"),
    [
        ("8", Fraction(8)),
        ("29.97", Fraction(2997, 100)),
        ("30000/1001", Fraction(30000, 1001)),
        ("-5", Fraction(-5)),
    ],
)
def test_a_frame_rate_is_exact(text: str, fps: Fraction) -> None:
    assert parse_fps(text) == fps


@pytest.mark.parametrize(
    "text", ["", "fast", "nan", "inf", "1/0", "1e400", "1e999999999", "9" * 21, "8/", "1//2"]
)
def test_what_is_no_frame_rate_is_refused_at_once(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^fps is .*, expected a number such as 8 or 30000/1001$"):
        parse_fps(text)


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("12GiB", 12 * GIB),
        ("0.5 gib", GIB // 2),
        ("800MiB", 800 << 20),
        ("8GB", 8 * 10**9),
        ("1024GiB", 1 << 40),
    ],
)
def test_an_amount_has_a_unit(text: str, num_bytes: int) -> None:
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize(
    "text", ["", "12", "GiB", "-8GiB", "8 apples", "1e3GiB", "nanGiB", "infGiB", "0GiB", "0.0B", "1025GiB"]
)
def test_what_is_no_amount_is_refused_by_the_options_name(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^workers is .*, expected ") as refused:
        parse_bytes(text, param="workers")
    assert refused.value.param == "workers"


def test_workers_of_a_machine_share_its_price_and_its_limit() -> None:
    found = cpu_workers("12GiB,8GiB,12GiB", node="attic", address="10.0.0.2", price_per_hour=0.3)
    workers = limited(found, parse_limits("10GiB"))
    assert [worker.id for worker in workers] == ["attic/cpu0", "attic/cpu1", "attic/cpu2"]
    assert [worker.vram_bytes // GIB for worker in workers] == [10, 8, 10]
    assert [worker.price_per_hour for worker in workers] == [pytest.approx(0.1)] * 3
    assert {worker.address for worker in workers} == {"10.0.0.2"}


def test_each_worker_of_a_machine_may_have_a_limit_of_its_own() -> None:
    workers = cpu_workers("12GiB,8GiB,12GiB", node="attic", address="")
    capped = limited(workers, parse_limits("6GiB, 9GiB,800MiB"))
    assert [worker.vram_bytes for worker in capped] == [6 * GIB, 8 * GIB, 800 * 2**20]
    said = r"vram-limit has 2 amounts, and this machine 3 workers \(CPU, CPU, CPU\): give one for all, or"
    with pytest.raises(InvalidInput, match=said):
        limited(workers, parse_limits("6GiB,9GiB"))


def test_more_workers_than_a_machine_can_take_are_refused() -> None:
    with pytest.raises(InvalidInput, match="got 65 workers, at most 64 are started on a machine"):
        cpu_workers(",".join(["1GiB"] * 65), node="attic", address="")


@pytest.mark.parametrize(
    ("given", "name"),
    [("Attic.PC 3", "attic-pc-3"), ("ünïcode", "n-code"), ("", "node"), ("--", "node"), ("a" * 40, "a" * 32)],
)
def test_a_node_name_is_fit_for_ids(given: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "-.example")
    assert node_name(given) == name


def test_nothing_chosen_is_left_to_the_planner(nothing_chosen: Any) -> None:
    options = request_options(**nothing_chosen)
    assert options.pop("prompts") == ("",)
    assert (options.pop("model"), options.pop("mode"), options.pop("negative_prompt")) == (
        "procedural",
        "auto",
        "",
    )
    assert (options.pop("seed"), options.pop("priority"), options.pop("fit")) == (0, 50, "crop")
    assert [options.pop(name) for name in ("weights", "loras", "references")] == [(), (), ()]
    assert options.pop("review") is False
    assert set(options.values()) == {None}


@pytest.mark.parametrize("option", ["fps", "size"])
def test_an_empty_option_is_not_the_same_as_none(option: str, nothing_chosen: Any) -> None:
    with pytest.raises(InvalidInput, match=f"^{option} is ''"):
        request_options(**(nothing_chosen | {option: ""}))


def test_an_unknown_fit_is_refused_with_those_there_are(nothing_chosen: Any) -> None:
    with pytest.raises(InvalidInput, match="fit is 'zoom', expected one of crop, pad, stretch"):
        request_options(**(nothing_chosen | {"fit": "zoom"}))


def test_an_unknown_weight_format_is_refused_with_those_there_are(nothing_chosen: Any) -> None:
    with pytest.raises(InvalidInput, match="weight_format is 'fp4', expected one of bf16, float8, int8"):
        request_options(**(nothing_chosen | {"weight_format": "fp4"}))


def test_an_unknown_mode_is_refused_with_those_there_are(nothing_chosen: Any) -> None:
    with pytest.raises(
        InvalidInput, match="expected one of auto, independent, chain, refine, infill, co_denoise"
    ):
        request_options(**(nothing_chosen | {"mode": "CHAIN"}))


@pytest.mark.parametrize("price", [-0.01, float("nan"), float("inf"), -float("inf")])
def test_a_price_is_a_number_that_can_be_paid(price: float) -> None:
    with pytest.raises(InvalidInput, match="expected 0 or more"):
        check_price(price)


@pytest.mark.parametrize("price", [None, 0, 0.05])
def test_a_price_may_be_nothing_or_unknown(price: float | None) -> None:
    check_price(price)


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(InvalidInput, match=f"^port is {port}, expected 1 to 65535$"):
        check_listen("127.0.0.1", port)


def test_a_free_port_is_let_go_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(CannotRun, match="Address already in use"):
            check_listen("127.0.0.1", port)
    check_listen("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(CannotRun, match=r"cannot be listened on .*choose another --port or --listen"):
        check_listen("203.0.113.9", 8470)


@pytest.mark.parametrize("address", ["no such host", "256.1.1.1"])
def test_an_address_that_is_none_is_said_to_be_unknown(address: str) -> None:
    with pytest.raises(CannotRun, match=f"^{address} is not known here .*give an address or another name"):
        check_listen(address, 8470)


def test_a_model_folder_is_named_by_its_whole_path_and_any_other_name_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "tiny_wan").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "model_index.json").write_text("{}")
    assert model_here("models/mine") == str(tmp_path / "models" / "mine")
    assert model_here("here") == str(tmp_path / "here")
    for name in ("tiny_wan", "Lightricks/LTX-Video-0.9.5", "wan2.2-i2v-a14b"):
        assert model_here(name) == name
