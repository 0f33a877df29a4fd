"""The topology that can be looked at: what is in it, and that each of its forms can be read."""

import json
import re
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from engine import App
from engine.cli import cli
from engine.cli.agents import describe
from engine.cli.chart import chart
from engine.cli.graph import Edge, Graph, Vertex, graph_of, span
from engine.cli.layout import Cell, place
from engine.cli.topology import written
from engine.drawing import Box
from engine.operator import Operator
from tests.shell import ROOT
from tests.unit.test_pictures import check_readable, texts

SVG = "{http://www.w3.org/2000/svg}"
LONG = "paid_orders-of.all-regions-and-of-every-shop-there-is"


class Order(Struct, frozen=True):
    """What is on the topics here."""

    id: str
    customer: str


class StreamJoin(Operator):
    """Stands for a join; nothing here runs."""


def shop() -> App:
    """Ten agents with everything that there can be: and a cycle."""
    app = App("shop")
    topic = {
        name: app.topic(name, key_type=str, value_type=Order, partitions=count)
        for name, count in {
            "orders": 12, "payments": 12, "customers": 12, "shipments": None, "returns": None,
            "audit": None, "alerts": 1, LONG: None, "unused": None,
        }.items()
    }  # fmt: skip
    customers = app.Table("customers", source=topic["customers"])
    totals = app.Table("totals", default=int)
    daily = app.Table("daily", default=int).hopping(3600, 60, sink=topic["audit"])
    paid = StreamJoin("paid", [topic["orders"], topic["payments"]], uses=[customers])
    app.declare(paid)

    def notify(_):
        pass

    def agent(name, reads, *sinks, tables=(), moved=False):
        async def fun(stream):
            """Read and yield."""
            async for event in stream.group_by(Order.customer) if moved else stream:
                yield event

        app.agent(reads, name=name, sink=sinks, tables=tables)(fun)

    agent("pay", paid, topic[LONG])
    agent("count", topic["orders"], tables=[totals])
    agent("day", topic[LONG], tables=[daily])
    agent("by-customer", topic["orders"], topic["returns"], tables=[customers, totals], moved=True)
    agent("ship", topic[LONG], topic["shipments"], notify)
    agent("again", topic["shipments"], topic["orders"])
    agent("return", topic["returns"], topic["alerts"], topic["shipments"])
    agent("fraud", topic["payments"], topic["alerts"])
    agent("watch", topic["alerts"], notify)
    agent("archive", topic["audit"])
    return app


def edges(graph: Graph) -> set[tuple[str, str, str]]:
    return {(edge.source, edge.how, edge.target) for edge in graph.edges}


def test_a_graph_has_everything_that_the_app_declares() -> None:
    """Topics, agents, joins, tables, the topic in the middle of a group_by, and who uses what."""
    graph = graph_of(shop())
    found = {vertex.id: vertex for vertex in graph.vertices}
    between = "topic:shop-by-customer-customer-repartition"
    assert found[between].repartition
    assert found["operator:paid"].about == "stream join"
    assert found["operator:paid"].changelog == "shop-paid-changelog"
    assert found["table:daily"].about == "windowed table, 1 h every 1 min"
    assert found["topic:orders"].partitions == 12
    assert found["topic:unused"].part is None
    ways = edges(graph)
    assert {
        ("topic:orders", "read", "operator:paid"),
        ("topic:payments", "read", "operator:paid"),
        ("table:customers", "use", "operator:paid"),
        ("operator:paid", "yield", "agent:pay"),
        ("topic:customers", "load", "table:customers"),
        ("topic:orders", "read", "agent:by-customer.move"),
        ("agent:by-customer.move", "emit", between),
        (between, "read", "agent:by-customer"),
        ("table:customers", "use", "agent:by-customer"),
        ("agent:by-customer", "update", "table:totals"),
        ("agent:day", "update", "table:daily"),
        ("table:daily", "result", "topic:audit"),
        ("agent:ship", "call", "function:notify"),
    } <= ways
    assert ("topic:orders", "read", "agent:pay") not in ways
    assert ("table:customers", "use", "agent:pay") not in ways
    assert not any("-dlq" in id_ for id_ in found)


def test_late_events_are_shown_on_their_way() -> None:
    """From the table that does not take them; and sliding windows by their name."""
    app = App("app")
    source, late = app.topic("orders"), app.topic("late-orders")
    table = app.Table("near", default=int).sliding(60, late=late)

    @app.agent(source, tables=[table])
    async def count(_):
        pass

    graph = graph_of(app)
    assert ("table:near", "late", "topic:late-orders") in edges(graph)
    assert {v.about for v in graph.vertices if v.name == "near"} == {
        "windowed table, 1 min sliding"
    }
    assert describe(app)[0]["sinks"] == ["late-orders"]


def test_global_tables_and_the_topics_of_a_foreign_key_join_are_shown() -> None:
    """The whole round of a foreign-key join, and a table that belongs to no sub-topology."""
    app = App("shop")
    orders, products, countries = (
        app.topic(name, key_type=str, value_type=Order, compacting=True)
        for name in ("orders", "products", "countries")
    )
    atlas = app.GlobalTable("atlas", source=countries)
    sold = app.ForeignKeyJoin("sold", orders, products, on=Order.customer)

    @app.agent(sold)
    async def bill(rows):
        async for _ in rows:
            atlas.get("de")

    graph = graph_of(app)
    edges = [(edge.source, edge.how, edge.target) for edge in graph.edges]
    rest = ["topic:shop-sold-subscriptions", "agent:sold-right", "topic:shop-sold-answers"]
    round_ = ["topic:orders", "operator:sold", *rest, "operator:sold"]
    assert set(pairwise(round_)) <= {(source, target) for source, _, target in edges}
    assert ("topic:countries", "load", "table:atlas") in edges
    assert ("table:atlas", "use", "agent:bill") in edges
    assert next(v for v in graph.vertices if v.id == "table:atlas").part == "global"
    lines = written(graph, "text").splitlines()
    at = lines.index("whole on each worker")
    assert [re.sub(r"^\W+| {2,}.*", "", each) for each in lines[at + 1 : at + 4]] == [
        "countries", "atlas", "bill",
    ]  # fmt: skip
    assert any("└─ shop-sold-answers" in each for each in lines)
    svg = written(graph, "svg")
    check_readable(svg)
    place = dict(texts(svg))
    assert place["whole on each worker"].y < place["countries"].y
    assert place["countries"].right < place["atlas"].x < place["bill"].x


def test_a_topic_is_in_the_sub_topology_that_reads_it() -> None:
    """Whoever writes to it; what none reads is in none."""
    app = shop()
    part = {vertex.id: vertex.part for vertex in graph_of(app).vertices}
    for each in app.topology().parts:
        for topic in each.inputs:
            assert part[f"topic:{topic.name}"] == each.name
        for node in each.nodes:
            assert part[f"agent:{node.name}"] == each.name
    assert part["function:notify"] is None


def test_dead_letters_are_shown_when_asked_for() -> None:
    """One topic for each input, with what it is."""
    graph = graph_of(shop(), dead_letters=True)
    assert ("topic:orders", "reject", "topic:orders-dlq") in edges(graph)
    inputs = {edge.target for edge in graph.edges if edge.how == "reject"}
    assert len(inputs) == 9


def test_the_text_names_all_and_each_with_what_follows_only_once() -> None:
    """A tree from inputs to outputs, a part after the other."""
    graph = graph_of(shop())
    text = written(graph, "text")
    assert text.startswith("shop: 6 sub-topologies, 10 topics, 11 agents, 1 operator, 3 tables, ")
    for vertex in graph.vertices:
        assert re.search(rf"─ {re.escape(vertex.name)}( |$)", text, re.MULTILINE), vertex
    assert text.count("1 partition\n") == 1
    assert "├─ paid   " in text
    assert "operator, see above" in text
    assert re.search("─ returns +topic of sub-topology 3\n", text)
    assert "neither read nor known to be written\n└─ unused" in text
    lines = text.splitlines()
    starts = [line.index("─ ") for line in lines if "orders  " in line or "─ pay " in line]
    assert starts[0] < starts[1]


TEXT = r"\"[^\"]*\""
SHAPES = rf"(\(\[{TEXT}\]\)|\[{TEXT}\]|\{{\{{{TEXT}\}}\}}|\[\({TEXT}\)\]|\[/{TEXT}/\])"
GRAMMAR = [
    r"flowchart LR",
    r"  subgraph part(\d+|global)\[\"[^\"]*\"\]",
    r"  end",
    rf"  (  )?n\d+{SHAPES}:::\w+",
    r"  n\d+ (-->|-\.->|<-\.->) n\d+",
    r"  classDef \w+ fill:#[0-9a-f]{6},stroke:#[0-9a-f]{6},color:#[0-9a-f]{6}",
]
"""What of Mermaid's flowcharts is used; its own parser (11.x) takes each of these."""


def test_the_mermaid_is_of_the_forms_that_mermaid_takes() -> None:
    """Each node once, each edge between two of them, and no character that means something."""
    graph = Graph(
        "app",
        ("0",),
        (Vertex("topic:a", "topic", 'a"]; end', "0", 'x <b>#"'), Vertex("agent:b", "agent", "b")),
        (Edge("topic:a", "agent:b", "read"),),
    )
    for each in (graph, graph_of(shop(), dead_letters=True)):
        lines = written(each, "mermaid").splitlines()
        for line in lines:
            assert any(re.fullmatch(form, line) for form in GRAMMAR), line
        nodes = [match[1] for line in lines if (match := re.match(r" +(n\d+)[(\[{]", line))]
        assert len(nodes) == len(set(nodes)) == len(each.vertices)
        ends = re.findall(r"^  (n\d+) \S+ (n\d+)$", "\n".join(lines), re.MULTILINE)
        assert len(ends) == len(each.edges)
        assert {node for pair in ends for node in pair} <= set(nodes)
        assert lines.count("  end") == len(each.parts)
    assert "a#34;#93;#59; end" in written(graph, "mermaid")


def test_the_json_is_what_the_page_says() -> None:
    """The fields that docs/topology.md lists, and no others."""
    page = (ROOT / "docs/topology.md").read_text()
    graph = json.loads(written(graph_of(shop()), "json"))
    assert list(graph) == ["app", "parts", "vertices", "edges"]
    assert graph["parts"] == ["0", "1", "2", "3", "4", "5"]
    named = {name for each in (*graph["vertices"], *graph["edges"]) for name in each}
    assert named == {*Vertex.__struct_fields__, *Edge.__struct_fields__}
    for name in (*named, *(edge["how"] for edge in graph["edges"])):
        assert f"`{name}`" in page, name


def boxes(svg: str) -> list[Box]:
    """Where the rectangles and drums are that stand for vertices."""
    root = ET.fromstring(svg)
    found = [
        Box(*(float(rect.get(name, 0)) for name in ("x", "y", "width", "height")))
        for rect in root.iter(f"{SVG}rect")
        if rect.get("fill") not in {"#ffffff", "#fafbfc"}
    ]
    for path in root.iter(f"{SVG}path"):
        numbers = re.fullmatch(r"M(\S+) (\S+)V(\S+)A\S+ 6 0 0 0 (\S+) \3V\2", path.get("d", ""))
        if numbers:
            x, top, bottom, right = map(float, numbers.groups())
            found.append(Box(x, top - 6, right - x, bottom - top + 12))
    return found


@pytest.mark.parametrize("dead_letters", [False, True])
def test_nothing_in_the_picture_covers_anything(dead_letters) -> None:
    """Ten agents: boxes apart, sub-topologies apart, each text inside of one box, lines around."""
    graph = graph_of(shop(), dead_letters=dead_letters)
    svg = chart(graph)
    check_readable(svg)
    found = boxes(svg)
    assert len(found) == len(graph.vertices)
    for one, other in combinations(found, 2):
        assert not one.overlaps(other)
    frames = [
        Box(*(float(rect.get(name, 0)) for name in ("x", "y", "width", "height")))
        for rect in ET.fromstring(svg).iter(f"{SVG}rect")
        if rect.get("fill") == "#fafbfc"
    ]
    assert len(frames) == len(graph.parts)
    for one, other in combinations(frames, 2):
        assert not one.overlaps(other)
    for words, at in texts(svg):
        if not words.startswith(("Topology of", "sub-topology")):
            around = [box for box in found if box.overlaps(at)]
            assert len(around) == 1
            assert around[0].x <= at.x
            assert at.right <= around[0].right


names = st.integers(0, 11).map("{}".format)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(names, names), max_size=24),
    st.lists(st.integers(0, 2), min_size=12, max_size=12),
    st.sets(names, max_size=3),
)
def test_any_graph_is_laid_out_without_overlaps(arcs, bands, last) -> None:
    """Cycles and loops too: boxes and bands apart, and no edge runs through a box."""
    cells = [
        Cell(f"{n}", 40 + 13 * (n % 5), 20 + 7 * (n % 4), band, f"{n}" in last)
        for n, band in enumerate(bands)
    ]
    arcs = [arc for arc in arcs if arc[0] not in last]
    placed = place(cells, arcs, head=20)
    for (one, here), (other, there) in combinations(placed.boxes.items(), 2):
        assert not here.overlaps(there), (one, other)
    extents = {}
    for cell in cells:
        box = placed.boxes[cell.id]
        low, high = extents.get(cell.band, (box.y, box.bottom))
        extents[cell.band] = min(low, box.y), max(high, box.bottom)
    bounds = [extents[band] for band in sorted(extents)]
    assert all(above[1] < below[0] for above, below in pairwise(bounds))
    assert len(placed.routes) == len({arc for arc in arcs if arc[0] != arc[1]})
    for route in placed.routes:
        for left, right, y in route.stops[1:-1]:
            passing = Box(left, y - 1, right - left, 2)
            assert not any(box.overlaps(passing) for box in placed.boxes.values())
        assert all(one[1] < other[0] for one, other in pairwise(route.stops))


def test_the_picture_of_the_main_job_is_up_to_date() -> None:
    """`headrace topology --format svg --output docs/pictures/topology.svg` draws it."""
    from agents import app  # noqa: PLC0415  only this test needs it

    svg = chart(graph_of(app))
    assert (ROOT / "docs/pictures/topology.svg").read_text() == svg
    check_readable(svg)


def test_the_command_writes_to_the_screen_or_to_a_file(tmp_path: Path) -> None:
    """The same; and without a broker."""
    printed = CliRunner().invoke(cli, ["topology", "agents"])
    assert printed.exit_code == 0, printed.output
    assert "raw-events" in printed.output
    file = tmp_path / "topology.txt"
    kept = CliRunner().invoke(cli, ["topology", "agents:app", "--output", str(file)])
    assert kept.output == ""
    assert file.read_text() == printed.output


@pytest.mark.parametrize(
    ("ms", "words"), [(60_000, "1 min"), (90_000, "90 s"), (86_400_000, "1 d"), (1, "1 ms")]
)
def test_times_are_written_in_whole_units(ms: int, words: str) -> None:
    assert span(ms) == words
