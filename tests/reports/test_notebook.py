"""Cards for notebooks: what they say first, that no name does harm, and that a training goes on as if unseen."""

from html.parser import HTMLParser

import pytest
import torch

from stepscope import Monitor, run_suite
from stepscope.diagnostics.compare import compare
from stepscope.diagnostics.trace import Event

HOSTILE = (
    "</td><script>alert(1)</script>",
    "'\" onload=alert(1) {{ 7*7 }}",
    "y" * 10_000,
    "\u202eneddih\u2066\x00\x1b[2J",
)
KNOWN = {"div", "p", "b", "details", "summary", "table", "tr", "th", "td", "tbody"}
LARGEST = 60_000


class Reader(HTMLParser):
    """The text of a card, its tags, and whether they nest."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.names, self.open, self.text = set(), set(), [], ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.names |= {name for name, _ in attributes}
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(value):
    html = value._repr_html_()
    assert len(html) < LARGEST
    assert not {"\u202e", "\u2066", "\x00", "\x1b"} & set(html)
    card = Reader(html)
    assert card.tags <= KNOWN
    assert card.names <= {"style", "scope", "open"}
    return card.text


def first_line(text):
    return text.strip().splitlines()[0]


def test_the_first_line_says_what_where_since_when_and_what_to_do(make):
    trace = make(rho=-3.0)
    found = trace.diagnose()
    line = first_line(read(found))
    assert line.startswith(f"✕ biased {found.findings[0].title}")
    assert f"since step {found.findings[0].steps[0]}" in line.replace("\u202f", "")
    assert line.endswith("raise β2, or use amsgrad=True, AdaShift or ADOPT.")
    assert first_line(read(trace)) == line


def test_every_record_has_a_card(odd_trace):
    assert str(odd_trace.diagnose().verdict) in first_line(read(odd_trace))


def test_names_do_nothing_but_stand_there(make):
    trace = make(tensors=4, names=HOSTILE, rho=-3.0)
    trace.meta["optimizer"] = HOSTILE[0]
    trace.events = [Event(7, "alert", f"surge: {HOSTILE[0]}", HOSTILE[2])]
    assert HOSTILE[0] in read(trace)
    read(trace.diagnose())
    assert HOSTILE[1] in read(compare({HOSTILE[1]: trace, HOSTILE[2]: make(), HOSTILE[3]: trace}))


def test_of_many_tensors_the_first_are_shown(make):
    trace = make(tensors=200)
    assert "Tensors, the first 12 of 200" in read(trace)


def train(steps, look):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with Monitor(optimizer, model=model, what_if=()) as monitor:
        for _ in range(steps):
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if look:
                look(monitor)
    return [param.detach().clone() for param in model.parameters()], monitor


def test_a_monitor_shows_what_it_has_and_disturbs_nothing():
    cards = []
    seen, monitor = train(5, lambda monitor: cards.append(read(monitor)))
    unseen, _ = train(5, None)
    assert all(torch.equal(a, b) for a, b in zip(seen, unseen, strict=True))
    assert "Recording; 3 steps so far." in cards[2]
    assert "Closed after 5 steps." in read(monitor)
    assert repr(monitor) == "<Monitor of Adam: 5 steps, closed>"


def test_a_monitor_without_a_step_shows_that():
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))])
    monitor = Monitor(optimizer, what_if=())
    assert "Recording; 0 steps so far." in read(monitor)
    assert repr(monitor) == "<Monitor of Adam: 0 steps, recording>"
    optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
    optimizer.step()
    monitor.close()


def test_a_card_that_fails_leaves_the_line_of_text(monkeypatch):
    _, monitor = train(1, None)
    monkeypatch.setattr(type(monitor), "trace", property(lambda self: 1 / 0))
    assert monitor._repr_html_() is None


def test_a_comparison_says_where_runs_part(make):
    line = first_line(read(compare({"one": make(), "same": make(), "other": make(c_plus=1.0, b=1e9)})))
    assert line.startswith("same is the same run as one, number for number. other ")


@pytest.mark.slow
def test_a_suite_begins_with_its_headline():
    result = run_suite(torch.optim.Adam, problems=["reddi online"], steps=200)
    text = read(result)
    assert first_line(text) == result.headline
    assert "reddi online" in text


@pytest.mark.parametrize("of", ["diagnose", "summary"])
def test_the_fallback_is_the_text_as_ever(make, of):
    assert len(str(getattr(make(), of)())) > 100
    assert repr(make()).startswith("<Trace: ")
