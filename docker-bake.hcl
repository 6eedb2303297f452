# Every image for amd64 and arm64, under one version: `make release` calls `docker buildx bake` with the variables below
# (docs/deployment.md). A builder that has both platforms: `docker buildx create --use`, with QEMU or nodes of both kinds.
#
#   docker buildx bake -f docker-bake.hcl --print           what would be built
#   docker buildx bake -f docker-bake.hcl --set '*.platform=linux/amd64' --load gateway

# Host and folder before the names, as images.registry of the chart.
variable "REGISTRY" { default = "" }
# That of pyproject.toml.
variable "VERSION" { default = "dev" }
variable "REVISION" { default = "" }
variable "SOURCE" { default = "" }
# RFC 3339; the commit's, so that the same commit makes the same label.
variable "CREATED" { default = "" }
variable "PYTHON_IMAGE" { default = "python:3.11-slim-bookworm" }
variable "CUDA_IMAGE" { default = "nvidia/cuda:13.0.1-devel-ubuntu24.04" }

function "image" {
  params = [name]
  result = "${REGISTRY == "" ? "" : "${trimsuffix(REGISTRY, "/")}/"}bioverify/${name}:${VERSION}"
}

group "default" {
  targets = ["services", "trainer"]
}

target "common" {
  context   = "."
  platforms = ["linux/amd64", "linux/arm64"]
  args = {
    PYTHON_IMAGE = PYTHON_IMAGE
    SOURCE       = SOURCE
    REVISION     = REVISION
    VERSION      = VERSION
  }
}

target "services" {
  inherits   = ["common"]
  dockerfile = "services/Dockerfile"
  name       = image_name
  matrix = {
    image_name = [
      "experimental",
      "go-rouge",
      "transcriptformer-pmi",
      "esm-mlp",
      "analogy",
      "claims",
      "format",
      "aggregator",
      "gateway",
      "artifacts",
      "puller",
      "pmi-builder",
    ]
  }
  target = image_name
  tags   = [image(image_name)]
  labels = {
    "org.opencontainers.image.title"   = "bioverify ${image_name}"
    "org.opencontainers.image.created" = CREATED
  }
}

target "trainer" {
  inherits   = ["common"]
  dockerfile = "trainer/Dockerfile"
  tags       = [image("trainer")]
  labels     = { "org.opencontainers.image.created" = CREATED }
}

# Not among the default ones: it takes CUDA's base, and was built nowhere yet.
target "trainer-gpu" {
  inherits  = ["trainer"]
  platforms = ["linux/amd64"]
  args = {
    PYTHON_IMAGE = CUDA_IMAGE
    GPU          = "1"
  }
  tags = [image("trainer-gpu")]
}
