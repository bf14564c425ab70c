# An image that serves one exported model, and holds only what that needs: no torch, no MLflow.
#
#   unetexp export models:/unetexp@champion --to onnx --precision int8 --out model.onnx
#   docker build --build-arg MODEL=model.onnx -t unetexp-model .
#   docker run --rm -p 127.0.0.1:5001:5001 unetexp-model
#
# For OpenVINO: --build-arg RUNTIME=openvino --build-arg MODEL='model.*' (its .xml and .bin).
FROM python:3.12-slim
ARG RUNTIME=onnxruntime
WORKDIR /app
COPY requirements-serving.txt constraints.txt ./
RUN pip install --no-cache-dir -r requirements-serving.txt "$RUNTIME" -c constraints.txt
COPY unetexp unetexp
ARG MODEL=model.onnx
COPY ${MODEL} model/
RUN python -m compileall -q unetexp && useradd --no-create-home server
USER server
EXPOSE 5001
HEALTHCHECK --start-period=30s --interval=30s --timeout=5s CMD \
    ["python", "-c", "from urllib.request import urlopen as get; get('http://127.0.0.1:5001/health')"]
ENTRYPOINT ["/bin/sh", "-c", "exec python -m unetexp.cli.serve model/$(cd model && ls | grep -E '\\.(onnx|xml)$' | head -1) --host 0.0.0.0 --port 5001 \"$@\"", "serve"]
