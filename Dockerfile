# A server for exported models. Build it in this folder: docker build -t pplc .
# Run it: docker run --rm -p 8080:8080 -e PPLC_TOKEN=choose-one -v "$PWD/output/pandatiger:/models/model:ro" pplc
FROM python:3.11-slim

# OpenCV needs libGL and GLib; Paddle needs libgomp.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 libgomp1 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY pyproject.toml setup.py README.md LICENSE ./
COPY pplc_cli ./pplc_cli
RUN pip install --no-cache-dir ".[serve]" \
    && useradd --create-home --uid 10001 pplc \
    && mkdir /models /collected \
    && chown pplc /collected

USER pplc
WORKDIR /home/pplc
ENV PPLC_OFFLINE=1 PYTHONUNBUFFERED=1
EXPOSE 8080
# The first start on a kind of CPU compiles the kernels for it, which takes a minute or two.
HEALTHCHECK --interval=30s --timeout=5s --start-period=180s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
# One process per container: its threads use all cores that the container has.
ENTRYPOINT ["pplc", "serve", "--host", "0.0.0.0", "--port", "8080", "--engine", "pplc"]
CMD ["/models/model"]
