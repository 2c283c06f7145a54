"""What a soak concludes from its samples; the soak itself is run by hand (loadtests/README.md)."""

import pytest

from loadtests.soak import MIB, Sample, SoakError, growth, table


def samples(pss: list[float], descriptors: list[int], name: str = "worker 0 (7)") -> list[Sample]:
    return [
        Sample(float(second), name, int(mebibytes * MIB), int(mebibytes * MIB), count)
        for second, (mebibytes, count) in enumerate(zip(pss, descriptors, strict=True))
    ]


def complaints(pss: list[float], descriptors: list[int]) -> list[str]:
    found = samples(pss, descriptors)
    return [words for each in growth(found[:1], found[1:], found[-1:]) for words in each.complaints]


def test_a_process_that_keeps_its_size_is_not_complained_of() -> None:
    assert complaints([10, 14, *[15] * 98], [18, *[60] * 98, 19]) == []


def test_what_a_process_allocates_at_first_is_not_growth() -> None:
    assert complaints([10, *[20] * 99], [18] * 100) == []


def test_memory_that_goes_on_growing_is_complained_of() -> None:
    assert complaints([10 + second * 0.05 for second in range(100)], [18] * 100) == ["worker 0 (7) grew by 4.0 MiB"]


def test_descriptors_that_stay_open_are_complained_of() -> None:
    assert complaints([10] * 100, [18, *[30] * 98, 25]) == ["worker 0 (7) kept 7 descriptors"]


def test_a_process_that_was_replaced_is_no_success() -> None:
    found = samples([10] * 50, [18] * 50)
    other = samples([10] * 100, [18] * 100, name="worker 0 (9)")[50:]
    with pytest.raises(SoakError, match="worker 0"):
        growth(found[:1], found[1:] + other, other[-1:])


def test_the_table_has_a_row_for_each_process() -> None:
    found = samples([10] * 100, [18] * 100)
    lines = table(growth(found[:1], found[1:], found[-1:])).splitlines()
    assert lines[2] == "| worker 0 (7) | 10.0 | 10.0 | 10.0 → 10.0 | 18, 18, 18 |"
    assert len(lines) == 3
