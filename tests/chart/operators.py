"""The resources of operators that the chart uses, in the published form of their CRDs as far as it uses them.

Kubernetes' own are checked by kubernetes-validate; these are not among its schemas. Written after the CRDs of
prometheus-operator (monitoring.coreos.com/v1), KEDA (keda.sh/v1alpha1), cert-manager (cert-manager.io/v1), the Gateway
API (gateway.networking.k8s.io/v1) and Kueue (kueue.x-k8s.io/v1beta2). A field that is not here is refused, as is a
value of another type.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
WHOLE: Schema = {"type": "integer", "minimum": 0}
# prometheus-operator's Duration and Go's, as far as the two agree.
DURATION: Schema = {"type": "string", "pattern": r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", "minLength": 2}
LABELS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}


def block(required: str, **properties: Schema) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def many(of: Schema) -> Schema:
    return {"type": "array", "items": of, "minItems": 1}


METADATA = block("name", name=TEXT, labels=LABELS, annotations=LABELS)
SECRET_KEY = block("name key", name=TEXT, key=TEXT)
SPECS: dict[tuple[str, str], Schema] = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): block(
        "selector endpoints",
        selector=block("matchLabels", matchLabels=LABELS),
        endpoints=many(
            block(
                "port",
                port=TEXT,
                path=TEXT,
                interval=DURATION,
                scheme={"enum": ["http", "https"]},
                tlsConfig=block("", serverName=TEXT, ca=block("secret", secret=SECRET_KEY)),
                authorization=block("credentials", type=TEXT, credentials=SECRET_KEY),
            )
        ),
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): block(
        "groups",
        groups=many(
            block(
                "name rules",
                name=TEXT,
                interval=DURATION,
                rules=many(
                    {
                        "oneOf": [
                            block("record expr", record=TEXT, expr=TEXT, labels=LABELS),
                            block(
                                "alert expr",
                                alert=TEXT,
                                expr=TEXT,
                                labels=LABELS,
                                annotations=LABELS,
                                keep_firing_for=DURATION,
                                **{"for": DURATION},
                            ),
                        ]
                    }
                ),
            )
        ),
    ),
    ("keda.sh/v1alpha1", "ScaledObject"): block(
        "scaleTargetRef triggers",
        scaleTargetRef=block("name", name=TEXT),
        minReplicaCount=WHOLE,
        maxReplicaCount=WHOLE,
        pollingInterval=WHOLE,
        advanced=block(
            "",
            horizontalPodAutoscalerConfig=block(
                "", behavior=block("", scaleDown=block("", stabilizationWindowSeconds={**WHOLE, "maximum": 3600}))
            ),
        ),
        triggers=many(
            block(
                "type metadata",
                type={"const": "prometheus"},
                metricType={"enum": ["AverageValue", "Value"]},
                # KEDA takes every entry of a trigger as text, numbers and truth values too.
                metadata=block(
                    "serverAddress query threshold",
                    **dict.fromkeys(("serverAddress", "query", "threshold", "ignoreNullValues"), TEXT),
                ),
            )
        ),
    ),
    ("cert-manager.io/v1", "Certificate"): block(
        "secretName issuerRef dnsNames",
        secretName=TEXT,
        duration=DURATION,
        renewBefore=DURATION,
        privateKey=block(
            "",
            algorithm={"enum": ["RSA", "ECDSA", "Ed25519"]},
            size=WHOLE,
            rotationPolicy={"enum": ["Never", "Always"]},
        ),
        usages=many({"enum": ["digital signature", "key encipherment", "server auth", "client auth"]}),
        issuerRef=block("name", name=TEXT, kind=TEXT, group=TEXT),
        dnsNames=many({"type": "string", "pattern": r"^[a-z0-9*]([a-z0-9.-]*[a-z0-9])?$"}),
    ),
    **{
        ("gateway.networking.k8s.io/v1", kind): block(
            "parentRefs rules",
            parentRefs=many(block("name", name=TEXT, namespace=TEXT, sectionName=TEXT)),
            hostnames=many({"type": "string", "pattern": r"^(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"}),
            rules=many(block("backendRefs", backendRefs=many(block("name port", name=TEXT, port=WHOLE)))),
        )
        for kind in ("HTTPRoute", "GRPCRoute")
    },
    ("kueue.x-k8s.io/v1beta2", "ResourceFlavor"): block(
        "",
        nodeLabels=LABELS,
        tolerations=many(block("", key=TEXT, operator={"enum": ["Exists", "Equal"]}, value=TEXT, effect=TEXT)),
    ),
    ("kueue.x-k8s.io/v1beta2", "ClusterQueue"): block(
        "namespaceSelector resourceGroups",
        namespaceSelector=block("", matchLabels=LABELS),
        resourceGroups=many(
            block(
                "coveredResources flavors",
                coveredResources=many(TEXT),
                flavors=many(
                    block(
                        "name resources",
                        name=TEXT,
                        resources=many(
                            block("name nominalQuota", name=TEXT, nominalQuota={"type": ["string", "integer"]})
                        ),
                    )
                ),
            )
        ),
    ),
    ("kueue.x-k8s.io/v1beta2", "LocalQueue"): block("clusterQueue", clusterQueue=TEXT),
}


def schema_of(api_version: str, kind: str) -> Schema:
    """Of a whole resource. Raises KeyError for one that is none of these."""
    return block(
        "apiVersion kind metadata spec",
        apiVersion={"const": api_version},
        kind={"const": kind},
        metadata=METADATA,
        spec=SPECS[api_version, kind],
    )
