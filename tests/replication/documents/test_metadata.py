"""`_repl`: every byte of it is pinned, and nothing but this document's own is believed."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from conflict.version import Version
from replication.documents.metadata import Meta, MetadataCodec, MetadataFault, digest_of, path_hash
from replication.documents.stored import tombstone_write
from replication.documents.wire import Document, Value

CODEC = MetadataCodec()
VERSION = Version(
    clock={"us": 1_700_000_000_000_005, "eu": 1_700_000_000_000_001},
    stamp=1_700_000_000_000_007,
    origin="us",
    dot=1_700_000_000_000_005,
    digest=bytes.fromhex("01") + bytes(range(16)),
)
META = Meta(VERSION, base=1_700_000_000_000_002, read=1_700_000_000_000_006, merged=True)
times = st.integers(0, 2**62)
versions = st.builds(
    Version,
    clock=st.dictionaries(st.text(min_size=1, max_size=5), st.integers(1, 2**62), max_size=5),
    stamp=times,
    origin=st.text(max_size=5),
    dot=times,
    digest=st.binary(max_size=17),
    deleted=st.just(False),  # that is not in the map, but in where it is kept
    mixed=st.booleans(),
)
metas = st.builds(Meta, versions, base=times, read=times, merged=st.booleans())


def encoded(meta: Meta = META, path: str = "orders/1", codec: MetadataCodec = CODEC) -> Value:
    value = Value()
    codec.encode(path, meta, value)
    return value


def decoded(value: Value, path: str = "orders/1", codec: MetadataCodec = CODEC) -> Meta:
    return codec.decode(path, value, update_time=2**62)


def test_golden_digest() -> None:
    """A library that serialises otherwise must fail here, not replicate wrongly."""
    body = Document()
    body.fields["b"].integer_value = -1
    body.fields["a"].map_value.fields["ü"].double_value = -0.0
    body.fields["a"].map_value.fields["x"].null_value = 0
    serialised = body.SerializeToString(deterministic=True)
    assert serialised.hex() == (
        "12210a0161121c321a0a070a0178120258000a0f0a02c3bc1209190000000000000080"
        "12100a0162120b10ffffffffffffffffff01"
    )
    assert digest_of(serialised).hex() == "01bb161fb271bd76d6eef4b749c32ebd2c"


@pytest.mark.parametrize(
    ("secret", "seal"),
    [
        (b"", "01bdab4b68b278d60ea06b57fdade70a0e"),
        (b"0123456789abcdef", "01e31090a2832ce1f87d9b8106adec7b83"),
    ],
)
def test_golden_repl(secret: bytes, seal: str) -> None:
    codec = MetadataCodec(secret=secret)
    assert codec.seal("orders/1", META).hex() == seal
    assert encoded(codec=codec).SerializeToString(deterministic=True).hex() == (
        "32d8010a110a04626173651209108280f9c0c1c482030a2d0a05636c6f636b122432220a0f0a0265751209108180f9c0c1"
        "c482030a0f0a0275731209108580f9c0c1c482030a1e0a06646967657374121492011101000102030405060708090a0b0c"
        "0d0e0f0a100a03646f741209108580f9c0c1c482030a0c0a066d6572676564120208010a0f0a066f726967696e12058a01"
        f"0275730a110a04726561641209108680f9c0c1c482030a1c0a047365616c1214920111{seal}"
        "0a120a057374616d701209108780f9c0c1c48203"
    )


def test_golden_tombstone() -> None:
    version = Version({"eu": 5}, 6, "eu", 5, deleted=True)
    write = tombstone_write(
        "orders/1",
        Meta(version, base=4, read=9),
        [1, 2],
        expire_at=10_000_001,
        prefix="projects/shop/databases/eu/documents/",
        codec=CODEC,
    )
    assert path_hash("orders/1") == "ce361ceb0b266c564be5a3f781b595e1"
    assert write.SerializeToString(deterministic=True).hex() == (
        "0aad020a5670726f6a656374732f73686f702f6461746162617365732f65752f646f63756d656e74732f5f7265706c5f74"
        "6f6d6273746f6e65732f6365333631636562306232363663353634626535613366373831623539356531"
        "1292010a055f7265706c1288013285010a0a0a0462617365120210040a150a05636c6f636b120c320a0a080a0265751202"
        "10050a0d0a0664696765737412039201000a090a03646f74120210050a0f0a066f726967696e12058a010265750a0a0a04"
        "72656164120210090a1c0a047365616c121492011101ca1b3658e0b1c4be654bb766d0a863560a0b0a057374616d701202"
        "100612130a056261736573120a4a080a0210010a02100212140a096578706972655f617412075205080a10e80712130a04"
        "70617468120b8a01086f72646572732f31"
    )


@given(metas, st.text(min_size=1))
def test_what_was_written_is_read_back(meta: Meta, path: str) -> None:
    assert decoded(encoded(meta, path), path) == meta


@given(metas, st.text(min_size=1, max_size=9), st.text(min_size=1, max_size=9))
def test_a_copy_on_another_path_is_not_believed(meta: Meta, path: str, other: str) -> None:
    if path == other:
        return
    with pytest.raises(MetadataFault, match="seal"):
        decoded(encoded(meta, path), other)


def test_a_seal_without_the_secret_is_not_believed_and_both_possible_causes_are_told() -> None:
    with pytest.raises(MetadataFault, match=r"another secret than this process has, or copied from another"):
        decoded(encoded(), codec=MetadataCodec(secret=b"0123456789abcdef"))


def test_a_secret_longer_than_a_key_counts_whole() -> None:
    """blake2b takes 64 bytes: two secrets that differ after that are still two."""
    one, other = (MetadataCodec(secret=b"s" * 64 + end) for end in (b"a", b"b"))
    assert one.seal("orders/1", META) != other.seal("orders/1", META)


@given(st.data())
def test_any_altered_entry_breaks_the_seal(data: st.DataObject) -> None:
    value = encoded()
    name = data.draw(st.sampled_from(["stamp", "dot", "base", "read"]))
    value.map_value.fields[name].integer_value += data.draw(st.integers(1, 1000))
    with pytest.raises(MetadataFault, match="seal"):
        decoded(value)


@pytest.mark.parametrize(("ahead", "believed"), [(0, True), (300_000_000, True), (300_000_001, False)], ids=str)
def test_a_time_ahead_of_the_document_itself_is_not_believed(ahead: int, believed: bool) -> None:
    update_time = VERSION.stamp - ahead
    if believed:
        assert CODEC.decode("orders/1", encoded(), update_time=update_time) == META
        return
    with pytest.raises(MetadataFault, match="300 s ahead"):
        CODEC.decode("orders/1", encoded(), update_time=update_time)


def garbage() -> list[Value]:
    wrong_type = Value(string_value="nonsense")
    empty = Value()
    empty.map_value.SetInParent()
    extra = encoded()
    extra.map_value.fields["more"].integer_value = 1
    text_stamp = encoded()
    text_stamp.map_value.fields["stamp"].string_value = "soon"
    negative = encoded()
    negative.map_value.fields["read"].integer_value = -1
    no_clock = encoded()
    no_clock.map_value.fields["clock"].integer_value = 3
    odd_clock = encoded()
    odd_clock.map_value.fields["clock"].map_value.fields["eu"].string_value = "x"
    huge_clock = encoded()
    for number in range(200):
        huge_clock.map_value.fields["clock"].map_value.fields[str(number)].integer_value = number
    return [wrong_type, empty, extra, text_stamp, negative, no_clock, odd_clock, huge_clock]


@pytest.mark.parametrize("value", garbage())
def test_garbage_is_a_fault_and_no_crash(value: Value) -> None:
    with pytest.raises(MetadataFault):
        decoded(value)


@given(st.binary(max_size=200))
def test_no_bytes_make_another_meta_believed(noise: bytes) -> None:
    value = encoded()
    try:
        value.MergeFromString(noise)
    except DecodeError:
        return
    try:
        meta = decoded(value)
    except MetadataFault:
        return
    assert meta == META
