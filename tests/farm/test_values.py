"""Values of which a farm holds a million are small, and like any other value."""

from __future__ import annotations

import copy
import pickle
import sys
from typing import Any

from farm.planning.plan import Segment


def test_a_segment_is_small_however_it_came_and_equal_to_its_copies(make: Any) -> None:
    planned = make.plan(num_frames=40).segments[1]
    read = Segment.model_validate_json(planned.model_dump_json())
    changed = planned.model_copy(update={"tail": planned.tail + 1})
    for segment in (planned, read, changed):
        assert sys.getsizeof(vars(segment)) < 400, "a table of names of its own takes 800"
        assert segment.model_fields_set is planned.model_fields_set
    assert planned == read == copy.deepcopy(planned) == pickle.loads(pickle.dumps(planned))
    assert hash(planned) == hash(read)
    assert changed != planned
    assert changed.model_copy(update={"tail": planned.tail}) == planned
