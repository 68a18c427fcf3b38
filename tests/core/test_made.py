"""What was made before is used again only for what is equal."""

from cumulet.core.made import Made


def test_made_again_only_of_something_else() -> None:
    calls: list[tuple[str, list[str]]] = []

    def make(name: str, parts: list[str]) -> str:
        calls.append((name, list(parts)))
        return f"{name}{parts}"

    made = Made(make)
    assert made.of(1, "a", ["x"]) == made.of(1, "a", ["x"]) == "a['x']"
    assert len(calls) == 1
    assert made.of(1, "a", ["y"]) == "a['y']"
    assert made.of(2, "a", ["y"]) == "a['y']"
    assert made.of(1, "a", ["x"]) == "a['x']"
    assert len(calls) == 4


def test_the_oldest_are_forgotten() -> None:
    calls: list[tuple[int, ...]] = []
    made = Made(calls.append, most=2)
    for key in (1, 2, 1, 3, 2, 3, 1):
        made.of(key, (key,))
    assert calls == [(1,), (2,), (3,), (1,)]
