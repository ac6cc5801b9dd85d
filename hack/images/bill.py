"""An image's bill of materials: CycloneDX 1.6, JSON, checked against its schema before anybody gets it.

The same image makes the same text: its number follows from the image's own digest, its date is that of the sources.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from packageurl import PackageURL

from hack.cluster.errors import ClusterError
from hack.images.contents import Model, Software, distribution, models, software
from hack.images.origin import Origin


def bill_of_materials(root: Path, *, name: str, digest: str, origin: Origin) -> str:
    """The bill of the image whose files lie below `root`. `digest` is what names the image (`sha256:…`).

    Raises ClusterError if the result is not valid CycloneDX.
    """
    image = Component(
        name=f"video-restoration-{name}",
        type=ComponentType.CONTAINER,
        version=origin.version,
        bom_ref="image",
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],
        properties=[
            Property(name="oci:image:config-digest", value=digest),
            Property(name="vcs:revision", value=origin.revision),
        ],
    )
    system = distribution(root)
    components = [_package(one, system) for one in software(root)] + [_model(one) for one in models(root)]
    bill = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, digest),
        metadata=BomMetaData(component=image, timestamp=origin.created),
        components=components,
    )
    bill.register_dependency(image, components)
    text = str(JsonV1Dot6(bill).output_as_string(indent=2)) + "\n"
    _check(text)
    return text


def _package(one: Software, system: str) -> Component:
    namespace = system.partition("-")[0] if one.kind == "deb" else None
    qualifiers = {"arch": one.architecture, "distro": system} if one.kind == "deb" else None
    url = PackageURL(type=one.kind, namespace=namespace, name=one.name, version=one.version, qualifiers=qualifiers)
    return Component(
        name=one.name,
        version=one.version,
        type=ComponentType.LIBRARY,
        purl=url,
        bom_ref=url.to_string(),
        licenses=[LicenseFactory().make_from_string(one.licence)] if one.licence else [],
    )


def _model(one: Model) -> Component:
    files = [
        Component(name=file, type=ComponentType.FILE, bom_ref=f"{one.name}/{file}", hashes=_sha256([digest]))
        for file, digest in sorted(one.files.items())
    ]
    return Component(name=one.name, type=ComponentType.MACHINE_LEARNING_MODEL, bom_ref=one.name, components=files)


def _sha256(digests: Iterable[str]) -> list[HashType]:
    return [HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in digests]


def _check(text: str) -> None:
    # Not above: it builds parsers of forty kinds of addresses, 2 s of CPU time for whoever imports this module.
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        raise ClusterError(f"The bill of materials is not valid CycloneDX 1.6: {error}")
