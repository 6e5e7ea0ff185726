# The image of all roles: `server`, `worker`, `migrate`, … are its arguments. See docs/deployment.md for pinning by digest.

FROM docker.io/library/python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY scheduling ./scheduling
COPY generated ./generated
# The lock holds what is for development too, so it only constrains: what the wheel needs is installed, at those versions.
RUN python -m venv /opt/scheduling \
 && /opt/scheduling/bin/pip install --constraint requirements.lock .

FROM docker.io/library/python:3.11.14-slim-bookworm
RUN groupadd --gid 10001 scheduling \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin scheduling
COPY --from=build /opt/scheduling /opt/scheduling
ENV PATH=/opt/scheduling/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 50051 9464
ENTRYPOINT ["scheduling"]
CMD ["server"]
