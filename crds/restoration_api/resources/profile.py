"""`ClusterRestorationProfile` and `RestorationProfile`: what an administrator decides, so that users need not.

Both kinds share one model. The namespaced kind lacks the two fields marked `CLUSTER_ONLY` (`model.source.hostPath` and
`pod.specPatch`): whoever may write a profile decides what runs, and those two reach beyond what creating a restricted
pod in the namespace already allows.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from restoration_api.request import Addressing, Codec, ColorCorrection, Precision
from restoration_api.resources.common import (
    API_VERSION,
    CLUSTER_ONLY,
    CRF_NEEDS_CODEC,
    CRF_RANGE,
    NOT_LOOKED_AT,
    Boolean,
    Condition,
    Crf,
    FreeForm,
    ImagePullPolicy,
    Int32,
    Int64,
    IntOrString,
    Metadata,
    ObjectName,
    OverlapFrames,
    Part,
    Quantity,
    ScaleFactor,
    Seed,
    SegmentFrames,
    ShortSide,
    Strength,
)
from restoration_api.resources.rules import ListMap, ListSet, Rule

ImageReference = Annotated[str, Field(min_length=1, max_length=1024)]
OptionalName = Annotated[str, Field(max_length=253)]
LabelValue = Annotated[str, Field(max_length=63)]
# Prefixes end in "/", so that raw/ does not open raw-private/.
Prefix = Annotated[str, Field(min_length=7, max_length=1024, pattern=r"^s3://[^/\s]+/(.*/)?$")]
ChunkFrames = Annotated[
    Int32,
    Field(ge=1, le=1025),
    Rule(cel="self % 4 == 1", message="must be 4n+1", holds=lambda frames: frames % 4 == 1),
]
_OWN_LABELS = ("videorestoration.dev/", "kueue.x-k8s.io/")
LabelKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=316,
        pattern="^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$",
    ),
    Rule(
        cel='!self.startsWith("videorestoration.dev/") && !self.startsWith("kueue.x-k8s.io/")',
        message="labels under videorestoration.dev/ and kueue.x-k8s.io/ are set by the operator",
        holds=lambda key: not key.startswith(_OWN_LABELS),
    ),
]


class BuiltinSource(Part):
    """Weights that the runner image brings along."""

    path: str = Field(default="/models", max_length=1024, description="Folder in the image that holds <model name>/.")


SubPath = Annotated[
    str,
    Field(max_length=1024),
    Rule(
        cel='!self.startsWith("/") && !self.split("/").exists(part, part == "..")',
        message="must be a folder inside the volume: no leading slash, no ..",
        holds=lambda path: not path.startswith("/") and ".." not in path.split("/"),
    ),
]


class ImageSource(Part):
    """Weights as an OCI image, mounted as an image volume."""

    reference: ImageReference = Field(description="Image that holds the weights, best by digest.")
    pull_policy: ImagePullPolicy = Field(default="IfNotPresent", description="When the kubelet pulls it.")
    sub_path: SubPath | None = Field(default=None, description="Folder of the model in the image; default its root.")


class PersistentVolumeClaimSource(Part):
    """Weights on a volume in the restoration's namespace, mounted read-only."""

    claim_name: ObjectName = Field(description="PersistentVolumeClaim in the restoration's namespace.")
    sub_path: SubPath | None = Field(default=None, description="Folder inside the volume.")


class HostPathSource(Part):
    """Weights on the node; needs a namespace whose Pod Security level allows hostPath."""

    path: str = Field(min_length=2, max_length=1024, pattern="^/", description="Folder on the node.")


class DownloadSource(Part):
    """Weights fetched by the runner when it starts; needs model.digest."""

    rules = (
        Rule(
            cel='!has(self.storage) || self.uri.startsWith("s3://")',
            field_path=".storage",
            message="storage belongs to s3:// only",
            holds=lambda it: it.storage is None or it.uri.startswith("s3://"),
        ),
        Rule(
            cel='!(has(self.revision) || has(self.endpoint) || has(self.tokenSecretName)) || self.uri.startsWith("hf://")',
            message="revision, endpoint and tokenSecretName belong to hf:// only",
            holds=lambda it: (
                (it.revision, it.endpoint, it.token_secret_name) == (None, None, None) or it.uri.startswith("hf://")
            ),
        ),
    )

    uri: str = Field(
        min_length=6,
        max_length=1024,
        pattern="^(hf|s3|https)://.+",
        description="Folder of the model: s3://bucket/folder or hf://OWNER/NAME[/folder].",
    )
    storage: OptionalName | None = Field(
        default=None, description="Entry of `storage` that serves an s3:// folder; default the first."
    )
    revision: str | None = Field(
        default=None, max_length=128, description="Commit or tag of a Hugging Face repository; default main."
    )
    endpoint: str | None = Field(
        default=None,
        max_length=512,
        pattern=r"^https?://[^@\s]+$",  # no credentials: it is in messages
        description="A mirror of the Hugging Face hub; default HF_ENDPOINT of pod.env, else huggingface.co.",
    )
    token_secret_name: ObjectName | None = Field(
        default=None, description="Secret with the key token, in the restoration's namespace, for hf://."
    )
    size_limit: IntOrString = Field(
        default="20Gi", description="Largest model that is fetched, and size of the volume it is fetched to."
    )
    cache_claim_name: OptionalName | None = Field(
        default=None, description="PersistentVolumeClaim that keeps them between Jobs; default an emptyDir."
    )


class ModelSource(Part):
    """Where the weights come from: exactly one of these."""

    union = ("builtin", "image", "persistent_volume_claim", "host_path", "download")

    builtin: BuiltinSource | None = Field(default=None, description="Weights in the runner image; nothing is mounted.")
    image: ImageSource | None = Field(default=None, description="Weights as an OCI image (Kubernetes 1.33 or newer).")
    persistent_volume_claim: PersistentVolumeClaimSource | None = Field(
        default=None, description="Weights on a volume."
    )
    host_path: HostPathSource | None = Field(
        default=None, json_schema_extra=CLUSTER_ONLY, description="Weights in a folder of the node."
    )
    download: DownloadSource | None = Field(default=None, description="Weights fetched when the runner starts.")


class Model(Part):
    """Which network, in which arithmetic, from where."""

    name: str = Field(
        min_length=1,
        max_length=63,
        pattern="^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        description="seedvr2-nano, seedvr2-3b, seedvr2-7b.",
    )
    precision: Precision | None = Field(
        default=None, description="Default the model's own: BF16 for seedvr2-3b and -7b, FP32 for seedvr2-nano."
    )
    digest: str | None = Field(
        default=None,
        pattern="^sha256:[0-9a-f]{64}$",
        description="Digest that the weights must have, else ModelInvalid.",
    )
    source: ModelSource = Field(description="Where the weights come from: exactly one of the fields.")


class Gpu(Part):
    """What one pod asks of the scheduler."""

    rules = (
        # has(): an object made by `default: {}` meets its rules before nested defaults are filled in.
        Rule(
            cel='!has(self.multiGPU) || self.multiGPU == "None" || self.count > 1',
            field_path=".multiGPU",
            message="SequenceParallel needs count of 2 or more",
            holds=lambda it: it.multi_gpu == "None" or it.count > 1,
        ),
    )

    resource_name: ObjectName = Field(default="nvidia.com/gpu", description="Extended resource of the device plugin.")
    count: Int32 = Field(default=1, ge=0, le=16, description="GPUs per pod; 0 runs on the CPU.")
    min_memory_mib: Int64 | None = Field(default=None, ge=0, description="Refuse devices with less memory.")
    kernel_cache_claim_name: OptionalName | None = Field(
        default=None, description="PersistentVolumeClaim that keeps compiled kernels between Jobs, for faster starts."
    )
    multi_gpu: Literal["None", "SequenceParallel"] = Field(default="None", description="How one pod uses several GPUs.")


ResourceAmounts = Annotated[dict[str, Quantity], Field(max_length=16)]


class Resources(Part):
    """CPU, memory and other amounts of the runner's container."""

    requests: ResourceAmounts | None = Field(default=None, description="What the scheduler reserves.")
    limits: ResourceAmounts | None = Field(default=None, description="What the container may use at most.")


class Scratch(Part):
    """Room for segments and the assembled file."""

    size_limit: IntOrString = Field(default="20Gi", description="Size of the scratch volume.")
    storage_class_name: OptionalName | None = Field(
        default=None, description="Makes it an ephemeral volume of this class; default an emptyDir."
    )


class WorkloadIdentity(Part):
    """Credentials that the platform gives to a service account."""

    service_account_name: ObjectName = Field(description="Service account of the runner pod; all entries must agree.")


class Storage(Part):
    """One object storage endpoint and the credentials for it."""

    rules = (
        Rule(
            cel="!(has(self.secretName) && has(self.workloadIdentity))",
            message="secretName and workloadIdentity exclude each other",
            holds=lambda it: it.secret_name is None or it.workload_identity is None,
        ),
        Rule(
            cel="!(has(self.caConfigMapName) && has(self.caSecretName))",
            message="caConfigMapName and caSecretName exclude each other",
            holds=lambda it: it.ca_config_map_name is None or it.ca_secret_name is None,
        ),
    )

    name: str = Field(
        min_length=1,
        max_length=63,
        pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        description="What input.storage and output.storage refer to; the first entry is the default.",
    )
    endpoint: str | None = Field(
        default=None,
        max_length=512,
        pattern=r"^https?://[^/\s@?#]+$",
        description="http(s)://host[:port]; default AWS in region.",
    )
    region: str | None = Field(default=None, max_length=63, description="Region for signing requests.")
    addressing: Addressing = Field(default=Addressing.AUTO, description="Bucket in the path or in the host name.")
    ca_config_map_name: ObjectName | None = Field(
        default=None,
        description="ConfigMap with ca.crt, in the restoration's namespace: believed beside the public authorities.",
    )
    ca_secret_name: ObjectName | None = Field(
        default=None, description="The same from a Secret, as cert-manager writes them; of it only ca.crt is mounted."
    )
    secret_name: ObjectName | None = Field(
        default=None,
        description="Secret with access-key, secret-key, optional session-token, in the restoration's namespace.",
    )
    workload_identity: WorkloadIdentity | None = Field(default=None, description="Instead of a Secret.")
    allowed_input_prefixes: Annotated[tuple[Prefix, ...], Field(max_length=64), ListSet()] | None = Field(
        default=None, description="s3://bucket/prefix/ that may be read; default all."
    )
    allowed_output_prefixes: Annotated[tuple[Prefix, ...], Field(max_length=64), ListSet()] | None = Field(
        default=None, description="s3://bucket/prefix/ that may be written; default all."
    )


class InputPolicy(Part):
    """What users may read besides object storage."""

    allow_https: Boolean = Field(default=False, description="Allow https:// inputs (public addresses only).")


class DefaultTarget(Part):
    """Size of the output where the user says nothing."""

    rules = (
        Rule(
            cel="!(has(self.shortSide) && has(self.scaleFactor))",
            message="set shortSide or scaleFactor, not both",
            holds=lambda it: it.short_side is None or it.scale_factor is None,
        ),
    )

    short_side: ShortSide | None = Field(default=None, description="Pixels of the shorter side.")
    scale_factor: ScaleFactor | None = Field(default=None, description="Both sides times this.")


class Defaults(Part):
    """What holds where a restoration leaves a field unset."""

    rules = (
        CRF_NEEDS_CODEC,
        CRF_RANGE,
        Rule(
            cel="!has(self.chunkFrames) || !has(self.overlapFrames) || self.overlapFrames * 2 < self.chunkFrames",
            field_path=".overlapFrames",
            message="overlapFrames must be less than half of chunkFrames",
            holds=lambda it: None in (it.chunk_frames, it.overlap_frames) or it.overlap_frames * 2 < it.chunk_frames,
        ),
    )

    target: DefaultTarget | None = Field(
        default=None, json_schema_extra={"maxProperties": 2}, description="Size of the output."
    )
    chunk_frames: ChunkFrames | None = Field(default=None, description="restoration.chunk.frames: 4n+1.")
    overlap_frames: OverlapFrames | None = Field(default=None, description="restoration.chunk.overlapFrames.")
    segment_frames: SegmentFrames | None = Field(default=None, description="execution.segmentFrames.")
    seed: Seed | None = Field(default=None, description="restoration.seed.")
    color_correction: ColorCorrection | None = Field(default=None, description="restoration.colorCorrection.")
    denoise_strength: Strength | None = Field(default=None, description="restoration.denoiseStrength.")
    strength: Strength | None = Field(default=None, description="restoration.strength.")
    codec: Codec | None = Field(default=None, description="output.codec.")
    crf: Crf | None = Field(default=None, description="output.crf; belongs to codec.")
    start_deadline_seconds: Int64 | None = Field(default=None, ge=1, description="startDeadlineSeconds.")
    active_deadline_seconds: Int64 | None = Field(default=None, ge=1, description="activeDeadlineSeconds.")
    ttl_seconds_after_finished: Int32 | None = Field(default=None, ge=0, description="ttlSecondsAfterFinished.")


class Limits(Part):
    """Caps; what exceeds them is not accepted."""

    max_parallelism: Int32 = Field(default=8, ge=1, le=256, description="Largest execution.parallelism.")
    max_active: Int32 | None = Field(
        default=None, ge=1, description="Jobs of this profile at once; others wait without a Job. Default unlimited."
    )
    max_output_megapixels: Int32 | None = Field(default=None, ge=1, description="Largest frame of an output.")
    max_input_bytes: Int64 | None = Field(default=None, ge=1, description="Largest input object.")


class Toleration(Part):
    """One toleration of the runner pod."""

    key: str | None = Field(default=None, max_length=316, description="Taint key.")
    operator: Literal["Exists", "Equal"] | None = Field(default=None, description="Default Equal.")
    value: str | None = Field(default=None, max_length=63, description="Taint value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Default all."
    )
    toleration_seconds: Int64 | None = Field(default=None, description="How long NoExecute is tolerated.")


class EnvironmentVariable(Part):
    """One environment variable of the runner."""

    name: str = Field(min_length=1, max_length=128, pattern="^[A-Za-z_][A-Za-z0-9_]*$", description="Name.")
    value: str | None = Field(default=None, max_length=4096, description="Value; never a secret.")


class PodTemplate(Part):
    """Where and as what the runner pod runs."""

    labels: dict[str, LabelValue] | None = Field(default=None, max_length=64, description="Labels of Job and pod.")
    annotations: dict[str, Annotated[str, Field(max_length=4096)]] | None = Field(
        default=None, max_length=64, description="Annotations of the pod."
    )
    propagate_labels: Annotated[tuple[LabelKey, ...], Field(max_length=32), ListSet()] | None = Field(
        default=None, description="Labels copied from the VideoRestoration to Job and pod, where present."
    )
    allow_consolidation: Boolean = Field(
        default=False, description="Let autoscalers move a running pod to save a node; default they must not."
    )
    node_selector: dict[str, LabelValue] | None = Field(
        default=None, max_length=32, description="Labels a node must have."
    )
    tolerations: tuple[Toleration, ...] | None = Field(
        default=None, max_length=32, description="Taints that are tolerated."
    )
    service_account_name: OptionalName | None = Field(default=None, description="Default `default`, without token.")
    priority_class_name: OptionalName | None = Field(default=None, description="PriorityClass of the pod.")
    runtime_class_name: OptionalName | None = Field(default=None, description="RuntimeClass of the pod.")
    scheduler_name: OptionalName | None = Field(default=None, description="Scheduler of the pod.")
    env: Annotated[tuple[EnvironmentVariable, ...], Field(max_length=64), ListMap("name")] | None = Field(
        default=None, description="Environment of the runner."
    )
    termination_grace_period_seconds: Int64 = Field(
        default=30, ge=1, le=3600, description="Time to finish the current slice after SIGTERM."
    )
    spec_patch: FreeForm | None = Field(
        default=None, json_schema_extra=CLUSTER_ONLY, description="Strategic merge patch on the pod's spec."
    )


class ProfileSpec(Part):
    """What the administrator decides."""

    image: ImageReference | None = Field(default=None, description="Runner image; default the operator's.")
    image_pull_policy: ImagePullPolicy | None = Field(default=None, description="When the kubelet pulls it.")
    image_pull_secrets: Annotated[tuple[ObjectName, ...], Field(max_length=8), ListSet()] | None = Field(
        default=None, description="Secrets for the registry, in the restoration's namespace."
    )
    model: Model = Field(description="Which network, in which arithmetic, from where.")
    gpu: Gpu = Field(default=Gpu(), description="What one pod asks of the scheduler.")
    resources: Resources | None = Field(default=None, description="CPU and memory of the runner.")
    scratch: Scratch = Field(default=Scratch(), description="Room for segments and the assembled file.")
    storage: Annotated[tuple[Storage, ...], Field(min_length=1, max_length=16), ListMap("name")] = Field(
        description="Object storage endpoints; the first is the default."
    )
    input: InputPolicy = Field(default=InputPolicy(), description="What users may read besides object storage.")
    defaults: Defaults | None = Field(default=None, description="What holds where a restoration leaves a field unset.")
    limits: Limits | None = Field(default=None, description="Caps; what exceeds them is not accepted.")
    pod: PodTemplate | None = Field(default=None, description="Where and as what the runner pod runs.")


class ProfileStatus(Part):
    """What the operator says about a profile."""

    observed_generation: Int64 | None = Field(
        default=None, ge=-1, description="metadata.generation that was looked at; -1 before the first visit."
    )
    conditions: Annotated[tuple[Condition, ...], Field(max_length=8), ListMap("type")] = Field(
        default_factory=tuple, description="Ready: a Job rendered from this profile is well-formed."
    )


class _Profile(Part):
    """What both kinds of profile are."""

    api_version: Literal["videorestoration.dev/v1alpha1"] = API_VERSION
    metadata: Metadata = Field(default_factory=Metadata)
    spec: ProfileSpec = Field(description="What the administrator decides.")
    status: ProfileStatus = Field(
        default_factory=ProfileStatus, description="What the operator says about it.", json_schema_extra=NOT_LOOKED_AT
    )


class ClusterRestorationProfile(_Profile):
    """ClusterRestorationProfile says how restorations run, cluster-wide: image, model, GPU, storage, defaults, caps."""

    kind: Literal["ClusterRestorationProfile"] = "ClusterRestorationProfile"


class RestorationProfile(_Profile):
    """RestorationProfile is a team's own profile: a ClusterRestorationProfile without hostPath and specPatch."""

    kind: Literal["RestorationProfile"] = "RestorationProfile"

    @model_validator(mode="after")
    def _stays_inside_the_namespace(self) -> Self:
        # The API server's schema has neither field; this guards documents that it has not seen.
        forbidden: dict[str, Any] = {
            "model.source.hostPath": self.spec.model.source.host_path,
            "pod.specPatch": self.spec.pod and self.spec.pod.spec_patch,
        }
        for path, value in forbidden.items():
            if value is not None:
                raise ValueError(f"spec.{path}: only a ClusterRestorationProfile has this field")
        return self
