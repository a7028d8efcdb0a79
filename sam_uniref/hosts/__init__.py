"""The frozen models that the plug-in sits on: SAM, SAM-HQ, SAM 2.1, EdgeTAM and MobileSAM, behind one interface."""

from sam_uniref.hosts.host import Host
from sam_uniref.hosts.registry import HOST_NAMES, PUBLISHED, build_host, skeleton_host

__all__ = ["HOST_NAMES", "PUBLISHED", "Host", "build_host", "skeleton_host"]
