"""The ids for Gymnasium, whoever is imported first."""

from __future__ import annotations

import subprocess
import sys

import pytest

MAKE = """
import sys
import gymnasium
assert "numba" not in sys.modules, "names only, until the first environment is made"
for name in ("rlaas/Network5G-v0", "rlaas/Recommender-v0"):
    env = gymnasium.make(name)
    env.reset(seed=1)
    many = gymnasium.make_vec(name, num_envs=2)
    many.reset(seed=1)
    print(env.spec.id, many.num_envs)
assert not [f for f in sys.meta_path if type(f).__module__.startswith("rlaas")]
assert "exec_module" not in vars(gymnasium.__loader__)
"""

FAIL_ONCE = """
import rlaas, sys
sys.modules["numpy"] = None
try:
    import gymnasium
except ImportError:
    pass
else:
    raise SystemExit("meant to fail")
del sys.modules["numpy"]
"""


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "imports",
    [
        "import rlaas, gymnasium",
        "import gymnasium, rlaas",
        "import rlaas, mo_gymnasium",
        "import rlaas; import gymnasium.spaces",
        # Who only asks where Gymnasium is, or fails at first, does not spend the one chance.
        "import rlaas, importlib.util; assert importlib.util.find_spec('gymnasium')",
        FAIL_ONCE,
    ],
)
def test_ids_are_known_in_any_order_of_imports(imports: str) -> None:
    done = _run(imports + MAKE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["rlaas/Network5G-v0 2", "rlaas/Recommender-v0 2"]


def test_rlaas_names_itself_as_the_module_of_an_id() -> None:
    done = _run("import gymnasium; print(gymnasium.make('rlaas:rlaas/Network5G-v0').spec.id)")
    assert (done.stdout, done.stderr) == ("rlaas/Network5G-v0\n", "")


def test_import_rlaas_loads_neither_gymnasium_nor_ray() -> None:
    code = "import sys, rlaas; print(sorted({'gymnasium', 'numpy', 'ray', 'numba'} & set(sys.modules)))"
    assert _run(code).stdout == "[]\n"


def test_an_absent_gymnasium_is_absent() -> None:
    done = _run(
        "import rlaas, sys\nsys.path[:] = []\ntry:\n    import gymnasium\nexcept ImportError as e:\n    print(e)"
    )
    assert done.stdout == "No module named 'gymnasium'\n", done.stderr
