"""A mesh without Kubernetes: real Envoys whose configuration is derived from Istio resources, and the certificates that
they prove themselves with.

    certificates   authorities and SPIFFE identities
    fields         reading a resource so that no field of it is passed over
    authorization  AuthorizationPolicy → Envoy's RBAC filters
    traffic        DestinationRule, VirtualService → clusters and routes
    istio          the resources of a mesh, and what of them applies to whom
    sidecar        whole configurations of inbound and outbound sidecars
    envoy          the process
"""
