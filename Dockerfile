# `gcnet serve` on a CPU. TORCH_INDEX is the address of PyTorch's CPU builds, as pytorch.org says it; without it
# torch comes with CUDA, and the image is ten times as large.
#
#     docker build --build-arg TORCH_INDEX=... -t gcnet .
#     docker run --rm -p 8000:8000 -v "$PWD/runs:/models:ro" gcnet /models/mine

FROM python:3.12-slim

ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1

WORKDIR /build
COPY constraints.txt ./
RUN pip install -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install -c constraints.txt '.[serve,onnx]' && rm -rf /build/src

# Weights that are fetched by name are kept in the home: mount it to keep them longer than the container.
RUN useradd --create-home gcnet
USER gcnet
WORKDIR /home/gcnet

EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["gcnet", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--help"]
