# Belfry without its demo database: the image expects a Postgres (docker-compose.yml brings one).
FROM node:22-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY migrations migrations
COPY src src
# The embedded Postgres is an optional dependency of a dependency; here it would be 60 MB that nobody uses.
RUN npm run build && npm prune --omit=dev --omit=optional --ignore-scripts

FROM node:22-bookworm-slim
ENV NODE_ENV=production
WORKDIR /app
COPY package.json belfry.schema.json LICENSE ./
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY migrations migrations
USER node
EXPOSE 10000
# With or without server.tls, whoever signed the certificate: it asks itself, over loopback. A relay without a gateway answers one port higher.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
  CMD ["node", "-e", "process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'; const port = Number(process.env.PORT ?? 10000); Promise.any([port, port + 1].flatMap((at) => ['http', 'https'].map((scheme) => fetch(`${scheme}://127.0.0.1:${at}/healthz`).then((r) => (r.ok ? r : Promise.reject(r)))))).then(() => process.exit(0), () => process.exit(1))"]
ENTRYPOINT ["node", "/app/dist/cli/main.js"]
CMD ["start", "--config", "/etc/belfry/belfry.yaml"]
