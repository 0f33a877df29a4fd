"""Naming an app on the command line, and every way to get it wrong."""

import socket
import time
from pathlib import Path

import pytest

from tests.shell import error_of, headrace

MODULES = {
    "unclosed": "from engine import App\napp = App('x'\n",
    "raising": "raise RuntimeError('no luck\\nat all')\n",
    "needing": "import a_package_that_is_not_there\n",
    "empty": "",
    "number": "app = 3\n",
    "idle": "from engine import App\napp = App('idle')\n",
    "shop": (
        "from engine import App\n"
        "shop = App('shop')\n"
        "@shop.agent(shop.topic('orders'))\n"
        "async def take(orders):\n"
        "    '''Take them.'''\n"
        "    async for _ in orders:\n"
        "        pass\n"
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory of modules, none of which is right but one."""
    for name, code in MODULES.items():
        (tmp_path / f"{name}.py").write_text(code)
    return tmp_path


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("unclosed", "module unclosed cannot be imported: SyntaxError: '(' was never closed"),
        ("raising", "module raising cannot be imported: RuntimeError: no luck at all"),
        ("needing", "module needing needs a_package_that_is_not_there, which is not installed"),
        ("empty", "module empty has no 'app': it defines no app = App(...)"),
        ("number", "number:app is no engine.App but a value of type int"),
        ("idle", "app 'idle' has no agents: is the module with its @app.agent imported?"),
        ("shop", "module shop has no 'app': did you mean shop:shop?"),
        ("shop:other", "module shop has no 'other': did you mean shop:shop?"),
        ("shop.py", "'shop.py' is a file: name the module instead, shop"),
        ("./shop.py", "'./shop.py' is a file: name the module instead, shop"),
        ("nowhere", "there is no module 'nowhere' in "),
        ("shop.inner", "there is no module 'shop.inner' in "),
        (":app", "':app' names no module: write MODULE or MODULE:NAME"),
    ],
)
def test_an_app_that_cannot_be_had_is_one_sentence(folder: Path, where: str, sentence: str) -> None:
    """It names what is wrong and what to write instead."""
    assert error_of(headrace("agents", where, cwd=folder)).startswith(sentence)


def test_the_right_name_works_from_the_current_directory(folder: Path) -> None:
    """Which is on the import path."""
    done = headrace("agents", "shop:shop", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split() == ["take", "orders", "0", "Take", "them."]


def test_debug_shows_where_a_module_fails(folder: Path) -> None:
    """The traceback that the sentence leaves out."""
    done = headrace("agents", "raising", "--debug", cwd=folder)
    assert done.returncode != 0
    assert 'raising.py", line 1' in done.stderr


def test_several_workers_of_a_wrong_module_say_so_once(folder: Path) -> None:
    """Before any of them is started."""
    done = headrace("worker", "unclosed", "--replicas", 3, cwd=folder)
    assert error_of(done).startswith("module unclosed cannot be imported")


def test_a_worker_without_a_broker_says_so_in_seconds(folder: Path) -> None:
    """Nobody listens there."""
    began = time.monotonic()
    done = headrace("worker", "shop:shop", "--broker", "127.0.0.1:1", cwd=folder)
    assert time.monotonic() - began < 10
    assert error_of(done).startswith("no Kafka broker answers at 127.0.0.1:1 ")
    assert "headrace dev" in done.stderr
    assert "--broker" in done.stderr


@pytest.mark.slow
def test_what_listens_and_says_nothing_is_no_broker(folder: Path) -> None:
    """Ten seconds are enough to know."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        done = headrace("worker", "shop:shop", "--broker", address, cwd=folder)
        assert time.monotonic() - began < 20
    assert error_of(done).startswith(f"no Kafka broker answers at {address} ")
