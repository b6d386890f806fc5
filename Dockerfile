# A small image that runs as nobody in particular. Mount the handlers (read-only will do) and keep the store on a volume:
#   docker build -t moontide .
#   docker run -v ./handlers:/moontide/handlers:ro -v moontide-data:/moontide/data moontide

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY config config
COPY handlers handlers
COPY benches benches
COPY src src
COPY tests tests
RUN cargo build --release --locked --bin moontide

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --home-dir /moontide --create-home moontide \
    && mkdir -p /moontide/handlers /moontide/data \
    && chown moontide /moontide/data
COPY --from=build /build/target/release/moontide /usr/local/bin/moontide
USER 10001
WORKDIR /moontide
VOLUME /moontide/data
# Docker waits 10 s before it kills; what is unfinished then goes back uncharged.
ENV MOONTIDE_RUN_GRACE=8s
HEALTHCHECK --interval=30s --timeout=10s --start-period=10s CMD ["moontide", "status", "--alive"]
ENTRYPOINT ["moontide"]
CMD ["run"]
