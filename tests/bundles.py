"""A small bundle made once for all tests of export."""

from dataclasses import asdict
from pathlib import Path

from lifters import striding_lifter

from poseda_deploy.bundle import Bundle
from poseda_deploy.train.publish import publish


def tiny_bundle(folder: Path) -> Bundle:
    """32 units wide, poses near a striding person."""
    lifter = striding_lifter("conditioned")
    config = {"lifter": asdict(lifter.config)}
    return publish(lifter, folder, name="tiny", config=config, report={}, extras={})
