"""The sidecar beside every result, its versions, and the certificate that the result is unchanged."""
