from pcipt.host.function_facts import read_facts
from pcipt.pci import parse_sbdf
from pcipt.pci.raw import LinuxFacts
from tests.trees import a_link, add

NIC, VGA, OTHER = map(parse_sbdf, ("00:03.0", "00:02.0", "00:04.0"))


def test_what_linux_tells(tmp_path):
    add(tmp_path, "pci0000:00/0000:00:03.0", reset_method="flr bus\n",
        iommu_group=a_link("../../../kernel/iommu_groups/7"))  # fmt: skip
    add(tmp_path, "pci0000:00/0000:00:02.0", boot_vga="1\n")
    add(tmp_path, "pci0000:00/0000:00:04.0", boot_vga="0\n")
    assert read_facts(str(tmp_path), [NIC, VGA, OTHER]) == {
        NIC: LinuxFacts(("flr", "bus"), 7),
        VGA: LinuxFacts((), None, True),  # Linux hides the file where no method is left
        OTHER: LinuxFacts((), None, False),
    }


def test_a_kernel_that_knows_no_reset_methods(tmp_path):
    add(tmp_path, "pci0000:00/0000:00:03.0")
    assert read_facts(str(tmp_path), [NIC, OTHER]) == {NIC: LinuxFacts()}  # the other has vanished


def test_garbage_is_unknown(tmp_path):
    add(tmp_path, "pci0000:00/0000:00:03.0", boot_vga="maybe\n", iommu_group=a_link("../../x"))
    assert read_facts(str(tmp_path), [NIC])[NIC] == LinuxFacts()
