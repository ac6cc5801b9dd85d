"""Objects that must be accepted or refused: one table, put before two judges.

The API server judges it in `tests/cluster/test_crd_validation.py`, the Python models in
`tests/contracts/test_resources.py`. Rows are written from what the API promises, not from the schema. Every row starts
from the shortest valid object of its kind.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.builders.resources import UNSET, Body, make_profile, make_vr

PROFILE_KINDS = ("ClusterRestorationProfile", "RestorationProfile")


@dataclass(frozen=True, kw_only=True)
class Case:
    """`refusal` is part of the API server's message, None where the object must be accepted.

    `server_only` marks what tolerant reading does not share on purpose: it ignores unknown fields, and nulls in place
    of defaults never reach it.
    """

    kind: str
    changes: Mapping[str, Any]
    refusal: str | None = None
    server_only: bool = False

    def __str__(self) -> str:
        changes = ",".join(f"{path}={_short(value)}" for path, value in self.changes.items()) or "as it is"
        return f"{self.kind}:{changes}:{'refused' if self.refusal else 'accepted'}"

    def body(self) -> Body:
        if self.kind == "VideoRestoration":
            return make_vr(self.changes)
        return make_profile(self.changes, kind=self.kind, name="team")


def _short(value: Any) -> str:
    text = "unset" if value is UNSET else repr(value)
    return text if len(text) <= 40 else f"{text[:24]}...({len(text)})"


Rows = tuple[tuple[Mapping[str, Any], str | None], ...]


def accept(path: str, *values: Any) -> Rows:
    """One row for each value of one field."""
    return tuple(({path: value}, None) for value in values)


def refuse(path: str, why: str, *values: Any) -> Rows:
    """One row for each value of one field; the API server's message contains `why`."""
    return tuple(({path: value}, why) for value in values)


def together(changes: Mapping[str, Any], why: str | None = None) -> Rows:
    """One row about several fields at once."""
    return ((changes, why),)


def whole_number(path: str, *, least: int, most: int | None = None, step: int = 1) -> Rows:
    """Both ends of a range and what lies just outside; a string and a fraction are no whole numbers."""
    rows = accept(path, least, least + step)
    rows += refuse(path, "should be greater than or equal to", least - step)
    rows += refuse(path, "must be of type integer", str(least), least + 0.5)
    if most is not None:
        rows += accept(path, most) + refuse(path, "should be less than or equal to", most + step)
    return rows


def one_of(path: str, *values: str, wrong: str) -> Rows:
    return accept(path, *values) + refuse(path, "Unsupported value", wrong, values[0].lower(), "")


SHA256 = "0123456789abcdef" * 4

VIDEO_RESTORATION: Rows = (
    *together({}),
    # profileRef
    *accept("profileRef", {}, {"kind": "RestorationProfile"}, {"name": "n" * 253}),
    *refuse("profileRef.kind", "Unsupported value", "Profile", "Builtin"),
    *refuse("profileRef.name", "should be at least 1 chars", ""),
    *refuse("profileRef.name", "may not be more than 253", "n" * 254),
    # input
    *refuse("input", "Required value", UNSET, {}),
    *accept(
        "input.uri",
        "s3://b/k",
        "https://example.com/v.mp4",
        "https://user@example.com:8443/a?b=c#d",
        "s3://media/raw/name with spaces.mp4",
        "s3://media/raw//double.mp4",
        "s3://media/raw/ünïcode/映画.mkv",
        "s3://media/folder/",
        "s3://b/" + "k" * 2041,
    ),
    *refuse(
        "input.uri",
        "should match",
        "http://example.com/v.mp4",
        "file:///etc/passwd",
        "hf://model/x",
        "s3:///key-only",
        "s3://bucket",
        "s3://bucket/",
        "s3://bucket/ leading-space",
        "s3://buc ket/key",
        "s3://bucket/line\nbreak",
        " s3://bucket/key",
        "S3://bucket/key",
    ),
    *refuse("input.uri", "should be at least 8 chars", "s3://b/", ""),
    *refuse("input.uri", "may not be more than 2048", "s3://b/" + "k" * 2042),
    *refuse("input.uri", "must be of type string", 1, ["s3://b/k"]),
    *accept("input.storage", "a", "n" * 63),
    *refuse("input.storage", "should be at least 1 chars", ""),
    *refuse("input.storage", "may not be more than 63", "n" * 64),
    *accept("input.versionId", "3LgVh", "v" * 1024),
    *refuse("input.versionId", "may not be more than 1024", "v" * 1025),
    *refuse("input.versionId", "should be at least 1 chars", ""),
    *accept("input.etag", '"quoted"', "e" * 256),
    *refuse("input.etag", "may not be more than 256", "e" * 257),
    *refuse("input.etag", "should be at least 1 chars", ""),
    *accept("input.sha256", SHA256),
    *refuse("input.sha256", "should match", SHA256.upper(), SHA256[:-1], SHA256 + "0", f"sha256:{SHA256}"),
    *refuse("input.clip", "should have at least 1 properties", {}),
    *whole_number("input.clip.startMilliseconds", least=0),
    *whole_number("input.clip.durationMilliseconds", least=1),
    *together({"input.clip": {"startMilliseconds": 600000, "durationMilliseconds": 10000}}),
    # output
    *refuse("output", "Required value", UNSET, {}),
    *accept("output.uri", "s3://b/k", "s3://media/a/b c.mp4", "s3://media/ünï.mkv", "s3://b/" + "k" * 2041),
    *refuse(
        "output.uri",
        "should match",
        "https://example.com/out.mp4",
        "s3://bucket/",
        "s3://bucket/folder/",
        "s3://bucket/ leading-space",
        "s3://bucket/trailing-space ",
        "s3://bucket/line\nbreak",
    ),
    *refuse("output.uri", "may not be more than 2048", "s3://b/" + "k" * 2042),
    *refuse("output.uri", "should be at least 8 chars", "s3://b/"),
    *refuse("output.uri", "output.uri must differ from input.uri", "s3://media/raw/clip.mp4"),
    *refuse("output.storage", "may not be more than 63", "n" * 64),
    *refuse("output.storage", "should be at least 1 chars", ""),
    *one_of("output.overwrite", "Never", "IfDifferent", "Always", wrong="Maybe"),
    *one_of("output.container", "MP4", "MKV", "MOV", wrong="WebM"),
    *one_of("output.audio", "Auto", "Copy", "Drop", wrong="Mute"),
    *accept("output.codec", "H264", "HEVC", "AV1"),
    *refuse("output.codec", "Unsupported value", "VP9", "h264", "H.264", "None"),
    *together({"output.codec": "ProRes", "output.container": "MOV"}),
    *together({"output.codec": "ProRes"}, "ProRes needs container MOV"),
    *together({"output.codec": "ProRes", "output.container": "MKV"}, "ProRes needs container MOV"),
    *together({"output.codec": "FFV1", "output.container": "MKV"}),
    *together({"output.codec": "FFV1"}, "FFV1 needs container MKV"),
    *together({"output.codec": "FFV1", "output.container": "MOV"}, "FFV1 needs container MKV"),
    *together({"output.codec": "AV1", "output.container": "MKV"}),
    *together({"output.codec": "AV1", "output.container": "MOV"}, "AV1 needs container MP4 or MKV"),
    *together({"output.codec": "HEVC", "output.container": "MOV"}),
    *whole_number("output.crf", least=0, most=63),
    *together({"output.codec": "AV1", "output.crf": 63}),
    *together({"output.codec": "HEVC", "output.crf": 51}),
    *together({"output.codec": "HEVC", "output.crf": 52}, "crf is 0-51 for H264 and HEVC"),
    *together({"output.codec": "H264", "output.crf": 52}, "crf is 0-51 for H264 and HEVC"),
    *together({"output.codec": "ProRes", "output.container": "MOV", "output.crf": 18}, "crf does not apply"),
    *together({"output.codec": "FFV1", "output.container": "MKV", "output.crf": 0}, "crf does not apply"),
    *accept("output.preset", "medium", "6", "p" * 20),
    *refuse("output.preset", "should match", "", "Medium", "very slow", "slow;rm"),
    *refuse("output.preset", "may not be more than 20", "p" * 21),
    *accept("output.pixelFormat", "yuv420p10le", "rgb"),
    *refuse("output.pixelFormat", "should match", "yuv420p-10", "p1"),
    *refuse("output.pixelFormat", "may not be more than 20", "p" * 21),
    # restoration
    *accept("restoration", {}, None, {"seed": None}),
    *accept("activeDeadlineSeconds", None),
    *whole_number("restoration.seed", least=0, most=4294967295),
    *one_of("restoration.colorCorrection", "None", "Wavelet", "LAB", "AdaIN", wrong="Histogram"),
    *[
        row
        for strength in ("restoration.denoiseStrength", "restoration.strength")
        for row in (
            *accept(strength, 0, 1, 1.0, 0.5, 0.1, 1e-9),
            *refuse(strength, "should be greater than or equal to 0", -0.1, -1),
            *refuse(strength, "should be less than or equal to 1", 1.0000001, 2),
            *refuse(strength, "must be of type number", "0.8"),
            *refuse(strength, "must be of type double", True),
        )
    ],
    *refuse("restoration.target", "set exactly one of shortSide, scaleFactor, or width with height", {}),
    *together(
        {"restoration.target": {"shortSide": 1080, "scaleFactor": 4}},
        "set exactly one of shortSide, scaleFactor, or width with height",
    ),
    *together(
        {"restoration.target": {"scaleFactor": 4, "width": 1920, "height": 1080}},
        "set exactly one of shortSide, scaleFactor, or width with height",
    ),
    *accept("restoration.target", {"width": 1920, "height": 1080}, {"width": 64, "height": 8192}),
    *refuse("restoration.target", "width and height go together", {"width": 1920}, {"shortSide": 1080, "height": 1080}),
    *refuse("restoration.target", "set exactly one of", {"height": 1080}),
    *whole_number("restoration.target.shortSide", least=64, most=4320, step=2),
    *refuse("restoration.target.shortSide", "should be a multiple of 2", 721),
    *whole_number("restoration.target.scaleFactor", least=1, most=8),
    *refuse("restoration.target", "should be a multiple of 2", {"width": 1919, "height": 1080}),
    *refuse("restoration.target", "should be a multiple of 2", {"width": 1920, "height": 1081}),
    *refuse("restoration.target", "should be less than or equal to 8192", {"width": 8194, "height": 1080}),
    *refuse("restoration.target", "should be greater than or equal to 64", {"width": 1920, "height": 62}),
    *refuse("restoration.chunk", "Required value", {}, {"overlapFrames": 4}),
    *accept("restoration.chunk.frames", 1, 5, 9, 21, 49, 1025),
    *refuse("restoration.chunk.frames", "chunk.frames must be 4n+1", 2, 3, 4, 20, 1024),
    *refuse("restoration.chunk.frames", "should be greater than or equal to 1", 0, -3),
    *refuse("restoration.chunk.frames", "should be less than or equal to 1025", 1029),
    *accept("restoration.chunk", {"frames": 21, "overlapFrames": 0}, {"frames": 9, "overlapFrames": 4}),
    *accept("restoration.chunk", {"frames": 1025, "overlapFrames": 512}),
    *refuse(
        "restoration.chunk",
        "overlapFrames must be less than half of frames",
        {"frames": 5, "overlapFrames": 4},
        {"frames": 1, "overlapFrames": 4},
        {"frames": 21, "overlapFrames": 12},
    ),
    *refuse("restoration.chunk", "should be a multiple of 4", {"frames": 49, "overlapFrames": 6}),
    *refuse("restoration.chunk", "greater than or equal to 0", {"frames": 49, "overlapFrames": -4}),
    *refuse("restoration.chunk", "less than or equal to 512", {"frames": 1025, "overlapFrames": 516}),
    # execution
    *accept("execution", {}, {"mode": "Single", "parallelism": 1}, {"mode": "Parallel", "parallelism": 4}),
    *one_of("execution.mode", "Auto", "Single", "Parallel", wrong="Fast"),
    *whole_number("execution.parallelism", least=1, most=256),
    *refuse("execution", "mode Single allows parallelism 1 only", {"mode": "Single", "parallelism": 2}),
    *whole_number("execution.segmentFrames", least=1, most=100000),
    # the rest
    *accept("suspend", True, False),
    *refuse("suspend", "must be of type boolean", "true", 1),
    *accept("retryPolicy", {}, {"maxDisruptions": 50}),
    *whole_number("retryPolicy.maxRetries", least=0, most=20),
    *whole_number("retryPolicy.maxInfrastructureRetries", least=0, most=100),
    *whole_number("retryPolicy.maxDisruptions", least=0, most=10000),
    *whole_number("retryPolicy.backoffSeconds", least=1, most=3600),
    *whole_number("retryPolicy.maxBackoffSeconds", least=1, most=86400),
    *whole_number("startDeadlineSeconds", least=1, most=31536000),
    *whole_number("activeDeadlineSeconds", least=1, most=31536000),
    *whole_number("ttlSecondsAfterFinished", least=0),
    *accept("cleanup", {}),
    *whole_number("cleanup.jobTTLSeconds", least=0),
    *one_of("cleanup.segments", "Delete", "Retain", wrong="Archive"),
    *one_of("cache", "Use", "Bypass", wrong="Ignore"),
    *accept("managedBy", "kueue.x-k8s.io/multikueue", "a/b"),
    *refuse("managedBy", "should match", "no-slash", "a/b/c", "A/b"),
    *refuse("managedBy", "should be at least 1 chars", ""),
    *refuse("managedBy", "may not be more than 63", "a/" + "b" * 62),
)

PROFILE: Rows = (
    *together({}),
    *refuse("model", "Required value", UNSET, {}, {"name": "seedvr2-nano"}),
    *refuse("storage", "Required value", UNSET),
    *accept("image", "registry.example.com/vr-runner@sha256:" + SHA256, "r" * 1024),
    *refuse("image", "should be at least 1 chars", ""),
    *refuse("image", "may not be more than 1024", "r" * 1025),
    *one_of("imagePullPolicy", "Always", "IfNotPresent", "Never", wrong="Sometimes"),
    *accept("imagePullSecrets", [], ["registry"], [f"s{i}" for i in range(8)]),
    *refuse("imagePullSecrets", "Duplicate value", ["registry", "registry"]),
    *refuse("imagePullSecrets", "must have at most 8 items", [f"s{i}" for i in range(9)]),
    *refuse("imagePullSecrets", "should be at least 1 chars", [""]),
    *refuse("imagePullSecrets", "may not be more than 253", ["n" * 254]),
    # model
    *accept("model.name", "seedvr2-3b", "a", "m" * 63),
    *refuse("model.name", "should be at least 1 chars", ""),
    *refuse("model.name", "should match", "SeedVR2", "-a", "a-", "a/b", "../etc"),
    *refuse("model.name", "may not be more than 63", "m" * 64),
    *one_of("model.precision", "BF16", "FP16", "FP32", "FP8", wrong="INT8"),
    *accept("model.digest", f"sha256:{SHA256}"),
    *refuse("model.digest", "should match", SHA256, f"sha512:{SHA256}", f"sha256:{SHA256[1:]}"),
    *refuse("model.source", "set exactly one of builtin, image, persistentVolumeClaim", {}),
    *refuse("model.source", "set exactly one of builtin", {"builtin": {}, "image": {"reference": "r"}}),
    *accept("model.source.builtin", {"path": "/opt/models"}),
    *refuse("model.source.builtin.path", "may not be more than 1024", "/" + "p" * 1024),
    *accept(
        "model.source",
        {"builtin": {}},
        {"image": {"reference": "r"}},
        {"image": {"reference": "r" * 1024, "pullPolicy": "Always", "subPath": "models/a..b"}},
        {"persistentVolumeClaim": {"claimName": "weights"}},
        {"persistentVolumeClaim": {"claimName": "weights", "subPath": "seedvr2/3b"}},
        {"download": {"uri": "hf://ByteDance-Seed/SeedVR2-3B", "revision": "main", "cacheClaimName": "cache"}},
        {"download": {"uri": "s3://models/3b/", "storage": "archive", "sizeLimit": "40Gi"}},
        {"download": {"uri": "hf://a/b/c", "endpoint": "https://hub.example.com/mirror", "tokenSecretName": "hub"}},
        {"download": {"uri": "https://example.com/3b.tar"}},
    ),
    *refuse("model.source", "Required value", {"image": {}}, {"persistentVolumeClaim": {}}, {"download": {}}),
    *refuse("model.source", "should be at least 1 chars", {"image": {"reference": ""}}),
    *refuse("model.source", "may not be more than 1024", {"image": {"reference": "r" * 1025}}),
    *refuse("model.source", "Unsupported value", {"image": {"reference": "r", "pullPolicy": "Later"}}),
    *refuse("model.source", "should be at least 1 chars", {"persistentVolumeClaim": {"claimName": ""}}),
    *refuse("model.source", "may not be more than 253", {"persistentVolumeClaim": {"claimName": "n" * 254}}),
    *refuse(
        "model.source",
        "may not be more than 1024",
        {"persistentVolumeClaim": {"claimName": "w", "subPath": "p" * 1025}},
    ),
    *refuse(
        "model.source",
        "must be a folder inside the volume",
        {"persistentVolumeClaim": {"claimName": "w", "subPath": "/a"}},
        {"persistentVolumeClaim": {"claimName": "w", "subPath": "a/../../b"}},
        {"image": {"reference": "r", "subPath": ".."}},
    ),
    *refuse("model.source", "should match", {"download": {"uri": "http://example.com/x"}}),
    *refuse(
        "model.source",
        "may not be more than 1024",
        {"image": {"reference": "r", "subPath": "p" * 1025}},
    ),
    *refuse(
        "model.source",
        "should match",
        {"download": {"uri": "hf://a/b", "endpoint": "hub.example.com"}},
        {"download": {"uri": "hf://a/b", "endpoint": "https://user:password@hub.example.com"}},
    ),
    *refuse(
        "model.source",
        "may not be more than 512",
        {"download": {"uri": "hf://a/b", "endpoint": "https://" + "h" * 505}},
    ),
    *refuse(
        "model.source", "may not be more than 253", {"download": {"uri": "hf://a/b", "tokenSecretName": "n" * 254}}
    ),
    *refuse("model.source", "may not be more than 253", {"download": {"uri": "s3://a/b", "storage": "n" * 254}}),
    *refuse("model.source", "should be at least 1 chars", {"download": {"uri": "hf://a/b", "tokenSecretName": ""}}),
    *refuse(
        "model.source",
        "belong to hf:// only",
        {"download": {"uri": "s3://a/b", "revision": "main"}},
        {"download": {"uri": "s3://a/b", "endpoint": "https://hub.example.com"}},
        {"download": {"uri": "s3://a/b", "tokenSecretName": "hub"}},
    ),
    *refuse("model.source", "storage belongs to s3:// only", {"download": {"uri": "hf://a/b", "storage": "archive"}}),
    *refuse("model.source", "should be at least 6 chars", {"download": {"uri": "s3://"}}),
    *refuse("model.source", "may not be more than 1024", {"download": {"uri": "s3://" + "k" * 1020}}),
    *refuse("model.source", "may not be more than 128", {"download": {"uri": "hf://a/b", "revision": "r" * 129}}),
    *refuse("model.source", "may not be more than 253", {"download": {"uri": "hf://a/b", "cacheClaimName": "n" * 254}}),
    # gpu
    *accept("gpu", {}, {"resourceName": "amd.com/gpu"}, {"count": 2, "multiGPU": "SequenceParallel"}),
    *whole_number("gpu.count", least=0, most=16),
    *whole_number("gpu.minMemoryMiB", least=0),
    *accept("gpu.kernelCacheClaimName", "kernels", "n" * 253),
    *refuse("gpu.kernelCacheClaimName", "may not be more than 253", "n" * 254),
    *refuse("gpu.resourceName", "should be at least 1 chars", ""),
    *refuse("gpu.resourceName", "may not be more than 253", "n" * 254),
    *refuse("gpu", "Unsupported value", {"count": 2, "multiGPU": "Ring"}),
    *refuse(
        "gpu",
        "SequenceParallel needs count of 2 or more",
        {"multiGPU": "SequenceParallel"},
        {"count": 0, "multiGPU": "SequenceParallel"},
    ),
    # resources, scratch
    *accept(
        "resources",
        {},
        {"requests": {"cpu": 8, "memory": "32Gi"}, "limits": {"memory": "1.5Gi"}},
        {"requests": {"cpu": "500m"}},
    ),
    *refuse("resources", "should match", {"requests": {"cpu": "-1"}}, {"limits": {"memory": "32 GB"}}),
    *refuse("resources", "must be of type integer,string", {"requests": {"cpu": 1.5}}, {"limits": {"cpu": True}}),
    *refuse("resources", "must have at most 16", {"requests": {f"r{i}": 1 for i in range(17)}}),
    *refuse("resources", "must have at most 16", {"limits": {f"r{i}": 1 for i in range(17)}}),
    *accept("scratch", {}, {"sizeLimit": "80Gi"}, {"sizeLimit": 1073741824}, {"storageClassName": "fast"}),
    *refuse("scratch", "must be of type integer,string", {"sizeLimit": 1.5}),
    *refuse("scratch", "may not be more than 253", {"storageClassName": "n" * 254}),
    # storage
    *refuse("storage", "should have at least 1 items", []),
    *accept("storage", [{"name": f"s{i}"} for i in range(16)]),
    *refuse("storage", "must have at most 16 items", [{"name": f"s{i}"} for i in range(17)]),
    *refuse("storage", "Duplicate value", [{"name": "a"}, {"name": "b"}, {"name": "a"}]),
    *refuse("storage", "Required value", [{}]),
    *accept("storage.0.name", "a", "a-1", "n" * 63),
    *refuse("storage.0.name", "should be at least 1 chars", ""),
    *refuse("storage.0.name", "should match", "A", "a_b", "-a", "a-"),
    *refuse("storage.0.name", "may not be more than 63", "n" * 64),
    *accept("storage.0.endpoint", UNSET, "https://s3.eu-central-1.amazonaws.com", "http://[::1]:9000"),
    *refuse("storage.0.endpoint", "should match", "s3.example.com", "https://a/b", "https://a/", "ftp://a", ""),
    *refuse("storage.0.endpoint", "should match", "https://user:password@a", "https://a?b", "https://a#b"),
    *refuse("storage.0.endpoint", "may not be more than 512", "https://" + "h" * 505),
    *refuse("storage.0.region", "may not be more than 63", "r" * 64),
    *one_of("storage.0.addressing", "Auto", "Path", "Virtual", wrong="Bucket"),
    *accept("storage.0.caConfigMapName", "minio-ca"),
    *refuse("storage.0.caConfigMapName", "should be at least 1 chars", ""),
    *refuse("storage.0.caConfigMapName", "may not be more than 253", "n" * 254),
    *accept("storage.0.caSecretName", "minio-tls"),
    *refuse("storage.0.caSecretName", "should be at least 1 chars", ""),
    *refuse("storage.0.caSecretName", "may not be more than 253", "n" * 254),
    *together(
        {"storage.0.caConfigMapName": "minio-ca", "storage.0.caSecretName": "minio-tls"},
        "caConfigMapName and caSecretName exclude each other",
    ),
    *refuse("storage.0.secretName", "should be at least 1 chars", ""),
    *refuse("storage.0.secretName", "may not be more than 253", "n" * 254),
    *together({"storage.0.secretName": UNSET, "storage.0.workloadIdentity": {"serviceAccountName": "vr"}}),
    *refuse(
        "storage.0.workloadIdentity",
        "secretName and workloadIdentity exclude each other",
        {"serviceAccountName": "vr"},
    ),
    *together({"storage.0.secretName": UNSET, "storage.0.workloadIdentity": {}}, "Required value"),
    *together(
        {"storage.0.secretName": UNSET, "storage.0.workloadIdentity": {"serviceAccountName": ""}},
        "should be at least 1 chars",
    ),
    *together(
        {"storage.0.secretName": UNSET, "storage.0.workloadIdentity": {"serviceAccountName": "n" * 254}},
        "may not be more than 253",
    ),
    *[
        row
        for prefixes in ("storage.0.allowedInputPrefixes", "storage.0.allowedOutputPrefixes")
        for row in (
            *accept(prefixes, [], ["s3://media/"], ["s3://media/raw/", "s3://media/a b/c/"]),
            *accept(prefixes, [f"s3://media/{i}/" for i in range(64)]),
            *refuse(prefixes, "should match", ["s3://media/raw"], ["https://media/raw/"], ["s3:///raw/"]),
            *refuse(prefixes, "should be at least 7 chars", ["s3://b"]),
            *refuse(prefixes, "may not be more than 1024", ["s3://b/" + "k" * 1017 + "/"]),
            *refuse(prefixes, "Duplicate value", ["s3://media/", "s3://media/"]),
            *refuse(prefixes, "must have at most 64 items", [f"s3://media/{i}/" for i in range(65)]),
        )
    ],
    # input, defaults, limits
    *accept("input", {}, {"allowHTTPS": True}),
    *refuse("input.allowHTTPS", "must be of type boolean", "yes"),
    *accept("defaults", {}, {"target": {}}, {"target": {"shortSide": 1080}}, {"target": {"scaleFactor": 4}}),
    *refuse("defaults.target", "set shortSide or scaleFactor, not both", {"shortSide": 1080, "scaleFactor": 4}),
    *whole_number("defaults.target.shortSide", least=64, most=4320, step=2),
    *refuse("defaults.target.shortSide", "should be a multiple of 2", 721),
    *whole_number("defaults.target.scaleFactor", least=1, most=8),
    *accept("defaults.chunkFrames", 1, 21, 49, 1025),
    *refuse("defaults.chunkFrames", "must be 4n+1", 2, 48),
    *refuse("defaults.chunkFrames", "should be greater than or equal to 1", -3),
    *refuse("defaults.chunkFrames", "should be less than or equal to 1025", 1029),
    *whole_number("defaults.overlapFrames", least=0, most=512, step=4),
    *refuse("defaults.overlapFrames", "should be a multiple of 4", 6),
    *together({"defaults": {"chunkFrames": 21, "overlapFrames": 8}}),
    *together({"defaults": {"chunkFrames": 21, "overlapFrames": 12}}, "less than half of chunkFrames"),
    *whole_number("defaults.segmentFrames", least=1, most=100000),
    *whole_number("defaults.seed", least=0, most=4294967295),
    *one_of("defaults.colorCorrection", "None", "Wavelet", "LAB", "AdaIN", wrong="Histogram"),
    *[
        row
        for strength in ("defaults.denoiseStrength", "defaults.strength")
        for row in (
            *accept(strength, 0, 1, 0.25),
            *refuse(strength, "should be greater than or equal to 0", -0.1),
            *refuse(strength, "should be less than or equal to 1", 1.1),
            *refuse(strength, "must be of type number", "0.8"),
        )
    ],
    *one_of("defaults.codec", "H264", "HEVC", "AV1", "ProRes", "FFV1", wrong="VP9"),
    *whole_number("defaults.crf", least=0, most=63),
    *together({"defaults": {"codec": "HEVC", "crf": 52}}, "crf is 0-51 for H264 and HEVC"),
    *together({"defaults": {"codec": "AV1", "crf": 52}}),
    *together({"defaults": {"codec": "ProRes", "crf": 18}}, "crf does not apply"),
    *whole_number("defaults.startDeadlineSeconds", least=1),
    *whole_number("defaults.activeDeadlineSeconds", least=1),
    *whole_number("defaults.ttlSecondsAfterFinished", least=0),
    *accept("limits", {}),
    *whole_number("limits.maxParallelism", least=1, most=256),
    *whole_number("limits.maxActive", least=1),
    *whole_number("limits.maxOutputMegapixels", least=1),
    *whole_number("limits.maxInputBytes", least=1),
    # pod
    *accept("pod", {}),
    *accept("pod.labels", {"team": "a", "example.com/x": ""}, {f"l{i}": "v" for i in range(64)}),
    *refuse("pod.labels", "may not be more than 63", {"team": "v" * 64}),
    *refuse("pod.labels", "must have at most 64", {f"l{i}": "v" for i in range(65)}),
    *accept("pod.annotations", {"note": "v" * 4096}),
    *refuse("pod.annotations", "may not be more than 4096", {"note": "v" * 4097}),
    *refuse("pod.annotations", "must have at most 64", {f"a{i}": "v" for i in range(65)}),
    *accept("pod.propagateLabels", [], ["team", "cost-center", "example.com/owner"], [f"l{i}" for i in range(32)]),
    *refuse("pod.propagateLabels", "are set by the operator", ["videorestoration.dev/uid"]),
    *refuse("pod.propagateLabels", "are set by the operator", ["team", "kueue.x-k8s.io/queue-name"]),
    *refuse("pod.propagateLabels", "should match", ["a b"], ["/x"], ["UPPER.example/x"], ["l" * 64]),
    *refuse("pod.propagateLabels", "should be at least 1 chars", [""]),
    *refuse("pod.propagateLabels", "may not be more than 316", ["p" * 253 + "/" + "l" * 64]),
    *refuse("pod.propagateLabels", "Duplicate value", ["team", "team"]),
    *refuse("pod.propagateLabels", "must have at most 32 items", [f"l{i}" for i in range(33)]),
    *accept("pod.allowConsolidation", True),
    *refuse("pod.allowConsolidation", "must be of type boolean", "no"),
    *accept("pod.nodeSelector", {"nvidia.com/gpu.product": "NVIDIA-L40S"}),
    *refuse("pod.nodeSelector", "may not be more than 63", {"a": "v" * 64}),
    *refuse("pod.nodeSelector", "must have at most 32", {f"l{i}": "v" for i in range(33)}),
    *accept(
        "pod.tolerations",
        [{}],
        [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        [{"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute", "tolerationSeconds": 60}],
        [{"operator": "Exists"}] * 2,
    ),
    *refuse("pod.tolerations", "Unsupported value", [{"operator": "In"}], [{"effect": "Never"}]),
    *refuse("pod.tolerations", "may not be more than 316", [{"key": "k" * 317}]),
    *refuse("pod.tolerations", "may not be more than 63", [{"value": "v" * 64}]),
    *refuse("pod.tolerations", "must have at most 32 items", [{"key": f"k{i}"} for i in range(33)]),
    *[
        row
        for name in ("serviceAccountName", "priorityClassName", "runtimeClassName", "schedulerName")
        for row in (
            *accept(f"pod.{name}", "n" * 253),
            *refuse(f"pod.{name}", "may not be more than 253", "n" * 254),
        )
    ],
    *accept("pod.env", [{"name": "NO_PROXY", "value": ".svc"}, {"name": "_x"}], [{"name": "n" * 128}]),
    *refuse("pod.env", "Required value", [{"value": "x"}]),
    *refuse("pod.env", "should match", [{"name": "1X"}], [{"name": "A-B"}]),
    *refuse("pod.env", "should be at least 1 chars", [{"name": ""}]),
    *refuse("pod.env", "may not be more than 128", [{"name": "n" * 129}]),
    *refuse("pod.env", "may not be more than 4096", [{"name": "A", "value": "v" * 4097}]),
    *refuse("pod.env", "Duplicate value", [{"name": "A"}, {"name": "A"}]),
    *refuse("pod.env", "must have at most 64 items", [{"name": f"E{i}"} for i in range(65)]),
    *whole_number("pod.terminationGracePeriodSeconds", least=1, most=3600),
)

CLUSTER_PROFILE_ONLY: Rows = (
    *accept("model.source", {"hostPath": {"path": "/mnt/models"}}),
    *refuse("model.source", "set exactly one of builtin", {"hostPath": {"path": "/mnt"}, "builtin": {}}),
    *refuse("model.source", "should match", {"hostPath": {"path": "mnt/models"}}),
    *refuse("model.source", "should be at least 2 chars", {"hostPath": {"path": "/"}}),
    *refuse("model.source", "may not be more than 1024", {"hostPath": {"path": "/" + "p" * 1024}}),
    *refuse("model.source", "Required value", {"hostPath": {}}),
    *accept("pod.specPatch", {}, {"dnsPolicy": "None", "containers": [{"name": "runner", "tty": True}]}),
    *refuse("pod.specPatch", "must be of type object", "dnsPolicy: None", [1]),
)

NAMESPACED_PROFILE_ONLY: Rows = (
    *refuse("model.source", "unknown field", {"hostPath": {"path": "/mnt/models"}}),
    *refuse("pod.specPatch", "unknown field", {"dnsPolicy": "None"}),
)

SERVER_ONLY: dict[str, Rows] = {
    # Strict field validation: what kubectl and our own command use.
    "VideoRestoration": (
        *refuse("resources", "unknown field", {"limits": {"nvidia.com/gpu": 1}}),
        *refuse("output.quality", "unknown field", "high"),
        *refuse("restoration.noiseScale", "unknown field", 0.1),
        *refuse("restoration.blend", "unknown field", 0.5),
        *refuse("model", "unknown field", "seedvr2-7b"),
        *refuse("image", "unknown field", "registry.example.com/mine"),
        # The server puts defaults in the place of nulls; Python never sees them.
        *accept("retryPolicy", None),
        *accept("output.container", None),
        *accept("suspend", None),
    ),
    "ClusterRestorationProfile": (
        *refuse("gpu.memory", "unknown field", 1),
        *refuse("limits.gpus", "unknown field", 1),
    ),
    "RestorationProfile": refuse("hostNetwork", "unknown field", True),
}


def cases() -> list[Case]:
    """Every row for every kind that it is about."""
    return list(_cases())


def _cases() -> Iterator[Case]:
    tables: dict[str, Rows] = {
        "VideoRestoration": VIDEO_RESTORATION,
        "ClusterRestorationProfile": PROFILE + CLUSTER_PROFILE_ONLY,
        "RestorationProfile": PROFILE + NAMESPACED_PROFILE_ONLY,
    }
    for kind, rows in tables.items():
        for changes, why in rows:
            yield Case(kind=kind, changes=changes, refusal=why)
        for changes, why in SERVER_ONLY[kind]:
            yield Case(kind=kind, changes=changes, refusal=why, server_only=True)
