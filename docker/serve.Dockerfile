# The HTTP service, on a CPU, as a user without rights:
#
#     docker build -f docker/serve.Dockerfile -t fer_jax_serve .
#     docker run --rm -p 127.0.0.1:8000:8000 fer_jax_serve
#
# Flags of `fer-jax serve` may follow. Put a reverse proxy with passwords and encryption in front of it.

FROM python:3.11-slim

WORKDIR /opt/fer_jax
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY configs configs
COPY fer_jax fer_jax
RUN pip install --no-cache-dir --constraint constraints.txt '.[serve]' \
    && useradd --create-home --uid 10001 fer_jax

USER 10001
WORKDIR /srv
EXPOSE 8000
# /health is for the process, /ready for a load balancer.
HEALTHCHECK --start-period=30s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["fer-jax", "serve", "--host", "0.0.0.0", "--port", "8000"]
