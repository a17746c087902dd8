"""Name the trace events of QEMU that are recognised but not kept.

They describe the inside of the emulated unit: its caches, its walks, its decisions. What software
or a device did is in other events, so a capture is complete without these; they are counted by
name and nothing else. Source: `hw/i386/trace-events` and `hw/virtio/trace-events` of QEMU 10.0
(installed as `trace-events-all`), and the names that other versions use.
"""

from __future__ import annotations

from typing import Final

VTD_INTERNAL: Final = frozenset(
    b"vtd_" + name
    for name in (
        b"inv_desc_cc_domain inv_desc_cc_global inv_desc_cc_device inv_desc_cc_devices"
        b" inv_desc_iotlb_global inv_desc_iotlb_domain inv_desc_iotlb_pages"
        b" inv_desc_iotlb_pasid_pages inv_desc_iotlb_pasid inv_desc_wait_irq"
        b" inv_desc_wait_write_fail inv_desc_iec inv_qi_enable inv_qi_setup inv_qi_head"
        b" inv_qi_tail inv_qi_fetch context_cache_reset re_not_present ce_not_present"
        b" iotlb_page_hit iotlb_page_update iotlb_cc_hit iotlb_cc_update iotlb_reset"
        b" fault_disabled replay_ce_valid replay_ce_invalid page_walk_level page_walk_one"
        b" page_walk_one_skip_map page_walk_one_skip_unmap page_walk_skip_read"
        b" page_walk_skip_reserve switch_address_space as_unmap_whole translate_pt"
        b" pt_enable_fast_path reg_dmar_root reg_ir_root reg_write_gcmd reg_write_fectl"
        b" reg_write_iectl reg_ics_clear_ip dmar_enable ir_enable ir_irte_get ir_remap"
        b" ir_remap_type ir_remap_msi ir_remap_msi_req fsts_ppf fsts_clear_ip"
        b" warn_invalid_qi_tail warn_ir_vector warn_ir_trigger"
    ).split()
)
"""Events of the VT-d unit that say how it came to its answer, not what the answer was."""

VIRTIO_INTERNAL: Final = frozenset(
    b"virtio_iommu_" + name
    for name in (
        b"device_reset_exit system_reset get_features device_status get_config set_config"
        b" attach detach detach_endpoint_from_domain map unmap unmap_done translate"
        b" init_iommu_mr get_endpoint put_endpoint get_domain put_domain translate_out"
        b" report_fault fill_resv_property notify_map notify_unmap remap"
        b" update_page_size_mask notify_flag_add notify_flag_del switch_address_space"
        b" freeze_granule host_resv_regions"
    ).split()
)
"""Events of the virtio-iommu unit; none of them is an event of a trace yet."""
