"""What colours every night: Prefect's server, a worker and the deployments; runs that were left; who is told."""
