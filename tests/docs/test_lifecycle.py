"""The lifecycle rules of docs/upkeep.md: an S3 server takes them, and they match what they are meant for."""

import json
from typing import Any
from xml.etree import ElementTree

import pytest
from hack.docs.blocks import blocks_of
from hack.docs.pages import ROOT
from minio.lifecycleconfig import LifecycleConfig
from tests.builders.servers import S3Server

from restoration_api.ledger import work_prefix

OUTPUT = "restored/movie.mp4"


@pytest.fixture
def rules() -> list[dict[str, Any]]:
    [text] = [block.text for block in blocks_of(ROOT, "docs/upkeep.md") if block.language == "json"]
    return list(json.loads(text)["Rules"])


def test_a_server_takes_the_rules(rules: list[dict[str, Any]], moto: S3Server) -> None:
    document = ElementTree.Element("LifecycleConfiguration")
    for rule in rules:
        _append(ElementTree.SubElement(document, "Rule"), rule)
    moto.make_bucket("lifecycle")
    store = moto.client()
    store.set_bucket_lifecycle("lifecycle", LifecycleConfig.fromxml(document))
    stored = store.get_bucket_lifecycle("lifecycle")
    assert stored is not None
    uploads, segments = stored.rules
    assert uploads.abort_incomplete_multipart_upload is not None
    assert uploads.abort_incomplete_multipart_upload.days_after_initiation == 3
    assert segments.expiration is not None
    assert (segments.expiration.days, segments.rule_filter.prefix) == (30, "restored/.vr/")


def test_what_expires_is_work_and_never_an_output(rules: list[dict[str, Any]]) -> None:
    [prefix] = [rule["Filter"]["Prefix"] for rule in rules if "Expiration" in rule]
    assert work_prefix(OUTPUT, "0" * 64).startswith(prefix)
    assert not OUTPUT.startswith(prefix)


def _append(parent: ElementTree.Element, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        child = ElementTree.SubElement(parent, name)
        if isinstance(value, dict):
            _append(child, value)
        else:
            child.text = str(value)
