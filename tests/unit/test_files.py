"""Reading files as records: formats, keys and times, faults, and memory."""

import gzip
import itertools
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.connect.accesslog import parse_log_line
from engine.connect.files import (
    BadLine,
    FileFormatError,
    Line,
    ReadOptions,
    detect_format,
    read_file,
)

COMBINED = (
    b'1.2.3.4 - ann [17/May/2015:10:05:03 +0000] "GET /a?b HTTP/1.1" 200 203 "http://r/" "Agent"'
)


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def read(path, **options):
    bad = []
    lines = list(read_file(path, ReadOptions(**options), bad.append))
    return lines, bad


# --- JSON lines -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines_pass_as_they_are(tmp_path, name):
    path = written(tmp_path, name, b'\xef\xbb\xbf{"a":1}\r\n\n not json \n{"a": 2}')
    lines, bad = read(path)
    assert lines == [
        Line(1, 12, None, b'{"a":1}', None),
        Line(3, 24, None, b" not json ", None),
        Line(4, 32, None, b'{"a": 2}', None),
    ]
    assert bad == []


def test_keys_and_times_of_json_lines(tmp_path):
    rows = [
        (b'{"k":"u1","t":5}', b"u1", 5),
        (b'{"k":7,"t":"1970-01-01T00:00:01+01:00"}', b"7", None),  # before 1970
        (b'{"k":true,"t":true}', None, None),
        (b'{"k":"\xc3\xa9","t":"1970-01-01T00:00:01.5"}', "é".encode(), 1500),
        (b'{"k":null,"t":5.9}', None, 5),
        (b'{"t":"12"}', None, 12),
        (b'{"k":"a","t":1e300}', b"a", None),
        (b'{"k":"a","t":"soon"}', b"a", None),
        (b'["k"]', None, None),
        (b'{"k":', None, None),
        (b'{"k":"\xff"}', None, None),
        (b"[" * 5000, None, None),
    ]
    path = written(tmp_path, "a.jsonl", b"\n".join(row for row, _, _ in rows))
    lines, _ = read(path, key_field="k", time_field="t")
    assert [(line.value, line.key, line.timestamp_ms) for line in lines] == rows


def test_an_overlong_line_is_reported_and_passed_over(tmp_path):
    long = b'{"a":"%b"}' % (b"x" * 100)
    path = written(tmp_path, "a.jsonl", b'{"a":1}\n' + long + b'\n{"a":2}\n' + long)
    lines, bad = read(path, max_line_bytes=50)
    assert [(line.number, line.position_bytes) for line in lines] == [(1, 8), (3, 125)]
    assert bad == [
        BadLine(2, 117, "longer than 50 bytes"),
        BadLine(4, 233, "longer than 50 bytes"),
    ]
    with pytest.raises(FileFormatError, match=r"a.jsonl, line 2: longer than 50 bytes\.$"):
        list(read_file(path, ReadOptions(max_line_bytes=50)))


@given(st.lists(st.binary(max_size=12).filter(lambda row: b"\n" not in row), max_size=12))
def test_positions_cut_the_file_into_its_lines(tmp_path_factory, rows):
    content = b"\n".join(b"x" + row for row in rows)
    path = written(tmp_path_factory.mktemp("rows"), "a.jsonl", content)
    try:
        lines, bad = read(path, max_line_bytes=8)
    except FileFormatError as error:
        assert "UTF-16" in str(error)  # NUL as the second byte  # noqa: PT017
        return
    ends = sorted((line.number, line.position_bytes) for line in [*lines, *bad])
    assert ends == [
        (number, min(len(content), end))
        for number, end in enumerate(
            itertools.accumulate(len(row) + 2 for row in rows),
            start=1,
        )
    ]


# --- CSV --------------------------------------------------------------------------------------


def test_csv_rows_become_objects(tmp_path):
    content = b'id,n,t\r\n"a ""b"", c",1.50,7\r\n\r\n"two\nlines",-3,8\r\nx,007,9\n'
    path = written(tmp_path, "a.csv", content)
    lines, bad = read(path, key_field="id", time_field="t")
    assert bad == []
    assert [(line.number, line.key, line.timestamp_ms) for line in lines] == [
        (2, b'a "b", c', 7),
        (4, b"two\nlines", 8),
        (6, b"x", 9),
    ]
    assert lines[-1].position_bytes == len(content)
    assert json.loads(lines[0].value) == {"id": 'a "b", c', "n": "1.50", "t": "7"}
    typed, _ = read(path, typed=True)
    assert [json.loads(line.value)["n"] for line in typed] == [1.5, -3, "007"]


def test_typed_takes_json_numbers_only(tmp_path):
    texts = ["1", "-0", "1e3", "1e999", "NaN", "", " 1", "+1", "0x1", "1_000", "9" * 30, "٣"]
    path = written(tmp_path, "a.csv", b"n,m\n" + "".join(f"{t},\n" for t in texts).encode())
    lines, _ = read(path, typed=True)
    numbers = [json.loads(line.value)["n"] for line in lines]
    assert numbers == [1, 0, 1000.0, *texts[3:]]


def test_bad_rows_are_reported_and_the_next_are_read(tmp_path):
    path = written(tmp_path, "a.csv", b'a,b\n1\n\xff,2\n"x"y,2\n3,4\n' + b"z" * 60 + b"\n5,6\n")
    lines, bad = read(path, max_line_bytes=50)
    assert [json.loads(line.value) for line in lines] == [
        {"a": "3", "b": "4"},
        {"a": "5", "b": "6"},
    ]
    assert [(line.number, line.reason.split(" (")[0]) for line in bad] == [
        (2, "1 fields where there are 2 names"),
        (3, "not a row of CSV"),
        (4, "not a row of CSV"),
        (6, "not a row of CSV"),
    ]


def test_a_quote_that_never_ends_takes_no_more_than_a_line_may(tmp_path):
    path = written(tmp_path, "a.csv", b'a,b\n"open,1\n' + b"7,8\n" * 100)
    lines, bad = read(path, max_line_bytes=80)
    assert bad[0].number == 2
    assert bad[0].position_bytes <= 100
    assert len(lines) > 75
    unended = written(tmp_path, "b.csv", b'a,b\n1,2\n"open,1\n')
    lines, bad = read(unended)
    assert len(lines) == 1
    assert [line.number for line in bad] == [3]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"a,a\n1,2\n", "each name once"),
        (b"a,\n1,2\n", "each name once"),
        (b'"a"b,c\n1,2\n', "line 1: not a row of CSV"),
        (b"a,b\n1,2\n", "has no field 'id': it has a, b."),
    ],
)
def test_a_bad_header_is_an_error_in_any_case(tmp_path, content, says):
    with pytest.raises(FileFormatError, match=says):
        read(written(tmp_path, "a.csv", content), key_field="id")


# --- access logs ------------------------------------------------------------------------------


def test_a_log_line_becomes_an_object(tmp_path):
    path = written(tmp_path, "access.log.gz", COMBINED + b"\nrubbish\n")
    lines, bad = read(path, key_field="host", time_field="time")
    [line] = lines
    assert (line.key, line.timestamp_ms) == (b"1.2.3.4", 1_431_857_103_000)
    assert json.loads(line.value) == {
        "host": "1.2.3.4",
        "user": "ann",
        "time": 1_431_857_103_000,
        "method": "GET",
        "path": "/a?b",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 203,
        "referer": "http://r/",
        "agent": "Agent",
    }
    assert [(line.number, line.reason) for line in bad] == [(2, "not a line of an access log")]
    with pytest.raises(FileFormatError, match="has no field 'ip'"):
        read(path, key_field="ip")


@pytest.mark.parametrize(
    ("old", "new", "field", "value"),
    [
        (b" ann ", b" - ", "user", None),
        (b" ann ", b" ann lee ", "user", "ann lee"),
        (b" 203 ", b" - ", "size", 0),
        (b"+0000", b"-0130", "time", 1_431_857_103_000 + 5_400_000),
        (b"+0000", b"+0130", "time", 1_431_857_103_000 - 5_400_000),
        (b"GET /a?b HTTP/1.1", b"-", "path", "-"),
        (b"GET /a?b HTTP/1.1", rb"\x16\x03", "method", ""),
        (b"/a?b", rb"/\"quoted\"", "path", r"/\"quoted\""),
        (b"/a?b", b"/caf\xe9", "path", "/caf\ufffd"),
        (b'Agent"', b"Agent cut o", "agent", "Agent cut o"),
        (b'"Agent"', b'"Agent" "1.1.1.1" 0.03', "agent", "Agent"),
        (b' "http://r/" "Agent"', b"", "agent", None),
        (b"1.2.3.4", b"2001:db8::1", "host", "2001:db8::1"),
    ],
)
def test_lines_a_server_writes(old, new, field, value):
    assert old in COMBINED
    parsed = parse_log_line(COMBINED.replace(old, new))
    assert parsed is not None
    assert getattr(parsed, field) == value


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"17/May", b"31/Feb"),
        (b"May", b"Mai"),
        (b"10:05", b"24:05"),
        (b"10:05", b"10:60"),
        (b"2015", b"1915"),
        (b" 200 203", b" 200 203x"),
        (b" 200 ", b" OK "),
        (COMBINED, b""),
        (b' HTTP/1.1" 200 203 "http://r/" "Agent"', b""),
    ],
)
def test_lines_no_server_writes(old, new):
    assert old in COMBINED
    assert parse_log_line(COMBINED.replace(old, new)) is None


@given(st.binary(max_size=200), st.integers(0, len(COMBINED)))
def test_any_bytes_are_read_or_refused(noise, at):
    """Alone, and in any place of a line that is good without them."""
    for line in (noise, COMBINED[:at] + noise + COMBINED[at:]):
        parsed = parse_log_line(line)
        assert parsed is None or (parsed.time >= 0 and parsed.host and parsed.status <= 999)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("start", [b"a - ", b'a - b [17/May/2015:10:05:03 +0000] "'])
@pytest.mark.parametrize("filling", [b" [", b'" 200', b"\\", b'"', b"x"])
def test_a_hostile_line_takes_no_time(start, filling):
    assert parse_log_line(start + filling * (500_000 // len(filling))) is None


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.jsonl", b"", "jsonl"),
        ("a.NDJSON", b"x", "jsonl"),
        ("a.csv.gz", b"x", "csv"),
        ("a.json", b' {"a":1}', "jsonl"),
        ("access.log", COMBINED, "access-log"),
        ("access.log.1.gz", COMBINED + b"\n", "access-log"),
        ("app.log", b'{"a":1}\n', "jsonl"),
    ],
)
def test_formats_are_told_apart(tmp_path, name, content, kind):
    assert detect_format(written(tmp_path, name, content)) == kind


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", b"[1]", "JSON array"),
        ("a.txt", b"hello", "no known format"),
        ("a.txt", b"", "no known format"),
        ("a.jsonl", '{"a":1}'.encode("utf-16"), "UTF-16"),
    ],
)
def test_other_formats_are_refused_in_a_sentence(tmp_path, name, content, says):
    with pytest.raises(FileFormatError, match=says) as raised:
        detect_format(written(tmp_path, name, content))
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)


def test_faults_of_the_file_itself(tmp_path):
    with pytest.raises(FileFormatError, match="cannot be read: No such file"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(FileFormatError, match="cannot be read: Is a directory"):
        read(tmp_path, format="jsonl")
    (tmp_path / "a.jsonl.gz").write_bytes(b'{"a":1}\n')
    with pytest.raises(FileFormatError, match="not a sound gzip file"):
        read(tmp_path / "a.jsonl.gz")
    whole = gzip.compress(b"".join(b'{"a":%d}\n' % n for n in range(50_000)))
    (tmp_path / "b.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match="cut off"):
        read(tmp_path / "b.jsonl.gz")
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    (tmp_path / "c.jsonl.gz").write_bytes(damaged)
    with pytest.raises(FileFormatError, match="not a sound gzip file"):
        read(tmp_path / "c.jsonl.gz")


def opened(path):
    return gzip.open(path, "wb", 1) if path.suffix == ".gz" else path.open("wb")


def peak_of(path, **options):
    count = bad = 0

    def on_bad(_):
        nonlocal bad
        bad += 1

    tracemalloc.start()
    try:
        for _ in read_file(path, ReadOptions(**options), on_bad):
            count += 1
        return count, bad, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("big.jsonl", b'{"a":"%b"}\n' % (b"x" * 990)),
        ("big.csv.gz", b"k,%b\n" % (b"x" * 997)),
        ("big.log", COMBINED + b"x" * 900 + b"\n"),
    ],
)
def test_memory_does_not_grow_with_the_file(tmp_path, name, row):
    path = tmp_path / name
    rows = (50 << 20) // len(row)
    with opened(path) as out:
        for _ in range(rows // 1000):
            out.write(row * 1000)
    count, bad, peak = peak_of(path)
    assert count == rows // 1000 * 1000 - name.startswith("big.csv")
    assert bad == 0
    assert peak < 2 << 20


@pytest.mark.parametrize("name", ["one.jsonl", "one.jsonl.gz", "one.csv", "one.log"])
def test_memory_does_not_grow_with_the_line(tmp_path, name):
    path = tmp_path / name
    with opened(path) as out:
        out.write({"csv": b"a,b\n", "log": COMBINED + b"\n"}.get(name[-3:], b""))
        for _ in range(50):
            out.write(b"x" * (1 << 20))
        out.write(b"\n" + {"csv": b"1,2\n", "log": COMBINED}.get(name[-3:], b"{}"))
    count, bad, peak = peak_of(path)
    assert (count, bad) == (2 if name == "one.log" else 1, 1)
    assert peak < 6 << 20
