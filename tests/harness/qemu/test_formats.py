"""What a real virtio-iommu says of itself is what the decoders make of it."""

from __future__ import annotations

import pytest

from decoders.bytewise import size_of
from decoders.virtio_iommu.config import decode_config, describe, encode_config
from decoders.virtio_iommu.constants import ResvSubtype
from decoders.virtio_iommu.forms import Form, detect
from decoders.virtio_iommu.properties import encode_properties, read_properties
from decoders.virtio_iommu.structures import RequestTail
from tests.harness.qemu.bench import RTL8139, Bench
from tests.writers.virtio_iommu import probe

pytestmark = pytest.mark.qemu


def test_config_space(bench: Bench) -> None:
    data = bench.iommu.config()
    config = decode_config(data)
    assert encode_config(config) == data
    assert (config.domain_range_start, config.domain_range_end) == (0, 0xFFFF_FFFF)
    assert config.probe_size == 512
    assert list(describe(config, bench.iommu.offered))[-1] == "endpoints without a domain bypass"
    assert detect(data, bench.iommu.offered) is Form.BYPASS_CONFIG


def test_properties(bench: Bench) -> None:
    config = decode_config(bench.iommu.config())
    endpoint = bench.devices[RTL8139].function.requester
    room = config.probe_size + size_of(RequestTail)
    answer = bench.iommu.request(probe(endpoint), room)
    assert answer.used == room
    payload = answer.data[: config.probe_size]
    (msi,) = read_properties(payload, "probe")
    assert msi.region is not None
    assert msi.region.subtype == ResvSubtype.MSI
    assert (msi.region.start, msi.region.end) == (0xFEE0_0000, 0xFEEF_FFFF)
    assert encode_properties([msi.region], config.probe_size) == payload
