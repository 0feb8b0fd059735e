# docker build .                    the service, slim and without a compiler
# docker build --target test .      the same sources through the test suite
#
# tools/run_dockerfile.py runs these stages without a container engine.

ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY src src
COPY fastverify fastverify
RUN python -m pip wheel --no-cache-dir --wheel-dir /wheels ".[server,hiredis]"

FROM build AS test
RUN apt-get update && apt-get install --yes --no-install-recommends make redis-server && rm -rf /var/lib/apt/lists/*
COPY Makefile ./
COPY tests tests
RUN make test ARGS="tests/store tests/adapters tests/test_layers.py"

FROM python:${PYTHON}-slim AS runtime
COPY --from=build /wheels /wheels
RUN python -m pip install --no-cache-dir --no-index --find-links=/wheels "fastverify[server,hiredis]" && rm -rf /wheels
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin fastverify
USER 10001
ENV FASTVERIFY_HOST=0.0.0.0 FASTVERIFY_PORT=8000
EXPOSE 8000
# FASTVERIFY_STORE, FASTVERIFY_SECRET and FASTVERIFY_API_DOMAIN come from outside: an image holds no secret.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"FASTVERIFY_PORT\"]}/health/ready', timeout=2)"]
ENTRYPOINT ["fastverify"]
CMD ["serve"]
