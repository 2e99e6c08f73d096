import pytest

from pcipt.host.function.facts import DeviceFacts, LinkFacts, read_device_facts, read_facts
from pcipt.pci import parse_sbdf
from pcipt.pci.raw import LinuxFacts
from tests.trees import a_link, add

NIC, VGA, OTHER = map(parse_sbdf, ("00:03.0", "00:02.0", "00:04.0"))
pytestmark = pytest.mark.usefixtures("way")


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


def test_facts_of_one_device(tmp_path):
    add(tmp_path, "pci0000:00/0000:00:03.0", irq="16\n", index="2\n", power_state="D3cold\n",
        max_link_speed="32.0 GT/s PCIe\n", max_link_width="16\n", current_link_speed="Unknown\n",
        current_link_width="0\n", aer_dev_nonfatal="ACSViol 2\nTOTAL_ERR_NONFATAL 2\n")  # fmt: skip
    assert read_device_facts(str(tmp_path), NIC) == DeviceFacts(
        irq=16,
        index=2,
        power_state="D3cold",
        link=LinkFacts(None, 0, 32_000, 16),
        errors={"nonfatal": {"ACSViol": 2}},
    )


def test_what_is_absent_or_garbage_is_unknown(tmp_path):
    add(tmp_path, "pci0000:00/0000:00:03.0", irq="many\n", acpi_index="-1\n", max_link_speed="fast\n",
        aer_dev_fatal="garbage\n", aer_dev_nonfatal="\n")  # fmt: skip
    assert read_device_facts(str(tmp_path), NIC) == DeviceFacts()
    assert read_device_facts(str(tmp_path), OTHER) == DeviceFacts()
    assert read_device_facts(str(tmp_path / "missing"), NIC) == DeviceFacts()


@pytest.mark.parametrize(
    ("text", "slot"),
    [
        ("0000:00:03\n", "5"),
        ("0000:00:04\n", None),
        ("0001:00:03\n", None),
        ("0000:00\n", None),  # a slot whose bus is known only
        ("", None),
    ],
)
def test_a_slot_has_the_functions_of_its_device(tmp_path, text, slot):
    add(tmp_path, "pci0000:00/0000:00:03.0")
    (tmp_path / "sys/bus/pci/slots/5").mkdir(parents=True)
    (tmp_path / "sys/bus/pci/slots/5/address").write_text(text)
    assert read_device_facts(str(tmp_path), NIC).slot == slot
