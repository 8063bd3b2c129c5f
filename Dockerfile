# The application, without servers of its own: REDIS_URL and DATABASE_URL name them. docker-compose.yml brings both.
# Both stages have the same Python, so that the environment of the first one works in the second.

FROM python:3.13-slim AS build
WORKDIR /srv/fourways

# What changes seldom comes first. pip stays outside of the environment: nothing is installed in the running image.
RUN python -m venv --without-pip /opt/fourways
COPY locks/runtime.txt locks/
RUN pip --python /opt/fourways/bin/python install --no-cache-dir --require-hashes --requirement locks/runtime.txt

# The command `fourways`, which finds the code where the last stage has it: a change of the code installs nothing. The
# package is empty here, and has to exist: else the build backend sees nothing to point to.
COPY pyproject.toml README.md LICENSE ./
RUN mkdir app && touch app/__init__.py && \
    pip --python /opt/fourways/bin/python install --no-cache-dir --no-deps --no-build-isolation --editable .


FROM python:3.13-slim
WORKDIR /srv/fourways
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin fourways
COPY --from=build /opt/fourways /opt/fourways
COPY alembic.ini ./
COPY migrations migrations
COPY app app
# A checkout may be readable for its owner alone, who is not the user here.
RUN chmod --recursive a+rX .

# Every address of the container, since 127.0.0.1 is out of reach for the port that Docker publishes.
ENV PATH=/opt/fourways/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FOURWAYS_HOST=0.0.0.0
# By number, so that an orchestrator can see that it is not root. It owns no file here, and can change none.
USER 10001
EXPOSE 8000

# Ready, and not only alive: who waits for "healthy" wants to send requests. A store that is down leaves it healthy, for
# readiness is refused only for what another instance could do better. Its answer may take as long as Postgres' timeout.
HEALTHCHECK --interval=5s --timeout=10s --start-period=30s --retries=3 CMD ["python", "-c", "\
import http.client, os; \
service = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT', 8000)), timeout=8); \
service.request('GET', '/health/ready'); \
answer = service.getresponse(); \
print(answer.read().decode()); \
raise SystemExit(answer.status != 200)"]

# It ends requests under way when it is told to stop, and with --workers its supervisor adds their metrics up.
CMD ["fourways", "serve"]
