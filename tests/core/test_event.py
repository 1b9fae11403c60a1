"""The renderings of an event."""

import json
from datetime import UTC, datetime
from typing import Any

from service.core.event import Event, render_body, render_cloudevent

AT = datetime(2026, 1, 1, tzinfo=UTC)
EVENT = Event(id="evt_1", type="task.succeeded", at=AT, data=b'{"id":"task_1"}', task_id="task_1")


def as_cloudevent(sequence: int, subject: str | None = "task_1") -> dict[str, Any]:
    rendered: dict[str, Any] = json.loads(
        render_cloudevent(render_body(EVENT, sequence), "https://example.com", subject)
    )
    return rendered


def test_a_cloudevent_has_every_attribute_of_the_event() -> None:
    assert as_cloudevent(8) == {
        "specversion": "1.0",
        "id": "evt_1",
        "source": "https://example.com",
        "type": "task.succeeded",
        "time": "2026-01-01T00:00:00.000Z",
        "subject": "task_1",
        "sequence": "00000000000000000008",
        "datacontenttype": "application/json",
        "data": {"id": "task_1"},
    }


def test_a_cloudevent_about_no_task_has_no_subject() -> None:
    assert "subject" not in as_cloudevent(8, subject=None)


def test_sequences_of_cloudevents_sort_as_text_in_the_order_of_the_events() -> None:
    numbers = [0, 8, 10, 99, 2**31, 2**63 - 1]
    sequences = [as_cloudevent(number)["sequence"] for number in numbers]
    assert sequences == sorted(sequences)
