"""The statistics socket."""
import os


def default_path(name):
    return f"/run/proxy-pipeline-{os.getuid()}/{name}.sock"
