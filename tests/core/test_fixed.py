"""Fixed expressions: the same SQL and the same answers, found again by their names."""

import pytest
import sqlalchemy as sa

from cumulet.core.fixed import fixed

NUMBERS = sa.Table("fixed_numbers", sa.MetaData(), sa.Column("n", sa.Integer, primary_key=True))
plain = sa.case((NUMBERS.c.n > 10, "many"), (NUMBERS.c.n > 1, "some"), else_="one")
sized = fixed("tests.size", plain)


def test_it_is_what_it_stands_for() -> None:
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    NUMBERS.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(NUMBERS.insert(), [{"n": n} for n in (1, 2, 30)])
        for _ in range(2):  # the second time from the cache, with other values around it
            for size, least in (("one", 0), ("some", 0), ("many", 20)):
                chosen = sa.select(NUMBERS.c.n, sized.label("size")).where(sized == size, NUMBERS.c.n > least)
                same = sa.select(NUMBERS.c.n, plain.label("size")).where(plain == size, NUMBERS.c.n > least)
                assert connection.execute(chosen).all() == connection.execute(same).all()
                assert str(chosen) == str(same)
        inner = sa.select(NUMBERS.c.n, sized.label("size")).subquery()
        counted = sa.select(inner.c.size, sa.func.count()).group_by(inner.c.size).order_by(inner.c.size)
        assert [tuple(row) for row in connection.execute(counted)] == [("many", 1), ("one", 1), ("some", 1)]


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match=r"tests\.size"):
        fixed("tests.size", sa.literal(1))
