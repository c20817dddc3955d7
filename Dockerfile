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
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
  CMD ["node", "-e", "const port = Number(process.env.PORT ?? 10000); Promise.any([port, port + 1].map((at) => fetch(`http://127.0.0.1:${at}/healthz`))).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "/app/dist/cli/main.js"]
CMD ["start", "--config", "/etc/belfry/belfry.yaml"]
