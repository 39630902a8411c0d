"""On which NUMA node a core is, by what Linux shows."""
import os

from pipeline.numa import ANY, node_of


def test_the_node_is_read_from_what_linux_shows(tmp_path):
    (tmp_path / "cpu3" / "node1").mkdir(parents=True)
    (tmp_path / "cpu4").mkdir()
    assert [node_of(core, tmp_path) for core in (3, 4, 5)] == [1, ANY, ANY]


def test_a_core_of_this_machine_belongs_to_a_node_that_has_memory():
    core = min(os.sched_getaffinity(0))
    assert node_of(core) == ANY or os.path.exists(f"/sys/devices/system/node/node{node_of(core)}/meminfo")
