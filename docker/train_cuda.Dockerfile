# Training on NVIDIA GPUs; the host needs a driver for CUDA 12 and the NVIDIA Container Toolkit:
#
#     docker build -f docker/train_cuda.Dockerfile -t fer_jax_train .
#     docker run --rm --gpus all --user $(id -u):$(id -g) -v "$PWD:/srv" fer_jax_train train --config effnet_b0
#
# Data, weights and runs are in the mounted folder. Stop it by `docker stop --time 300`, so that a checkpoint is
# saved; the same command resumes.

FROM python:3.11-slim

WORKDIR /opt/fer_jax
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY configs configs
COPY fer_jax fer_jax
# The wheels of the extra contain CUDA and cuDNN.
RUN pip install --no-cache-dir --constraint constraints.txt '.[cuda12]'

# The user that --user names has no home folder.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility HOME=/srv FER_JAX_CACHE=/srv/.cache/fer_jax
WORKDIR /srv
ENTRYPOINT ["fer-jax"]
CMD ["--help"]
