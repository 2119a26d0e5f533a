# The web process of the Procfile. Release: docker run --rm … router db upgrade. Worker: docker run … router poll.
FROM python:3.11-slim

# The port is set, as a hosting platform would: listen on all interfaces.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PORT=8000

WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements.txt
COPY . .
# instance/ holds the SQLite database: mount a volume there, or set DATABASE_URL.
RUN pip install --no-cache-dir --no-index --no-deps --no-build-isolation --editable . \
    && useradd --system --home-dir /app router \
    && install -d -o router -g router instance
USER router

EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/healthz', timeout=2)"]
CMD ["gunicorn", "-c", "gunicorn.conf.py", "router.app:create_app()"]
