{{/* What one value demands of another; the schema looks at each alone. */}}
{{- define "r2o.validate" -}}
{{- $values := .Values -}}
{{- if and (eq $values.state.kind "url") (not $values.state.url) -}}
{{- fail "state.url is empty: name an object store, such as s3://bucket/r2o, or set state.kind to shared" -}}
{{- end -}}
{{- if and (ne $values.state.kind "url") $values.state.url -}}
{{- fail (printf "state.url is %s but state.kind is %s: set state.kind to url" $values.state.url $values.state.kind) -}}
{{- end -}}
{{- if and $values.state.volume.claim $values.state.volume.hostPath -}}
{{- fail "state.volume.claim and state.volume.hostPath are both given: choose one" -}}
{{- end -}}
{{- if and (eq $values.tls.mode "secret") (not $values.tls.secret.server) -}}
{{- fail "tls.mode is secret: name the Secret with tls.crt, tls.key and ca.crt in tls.secret.server" -}}
{{- end -}}
{{- if and (eq $values.tls.mode "secret") $values.tls.clients (not $values.tls.secret.client) -}}
{{- fail "tls.clients is true: name the Secret with the workers' tls.crt and tls.key in tls.secret.client" -}}
{{- end -}}
{{- if and (eq $values.tls.mode "none") $values.tls.clients -}}
{{- fail "tls.clients is true but tls.mode is none: clients cannot show certificates without TLS" -}}
{{- end -}}
{{- if and (eq $values.tokens.mode "secret") (not $values.tokens.secret) -}}
{{- fail "tokens.mode is secret: name the Secret in tokens.secret" -}}
{{- end -}}
{{- if and (eq $values.tls.mode "none") (ne $values.tokens.mode "none") (ne $values.service.type "ClusterIP") -}}
{{- fail (printf "service.type is %s but tls.mode is none: tokens would leave the cluster in the clear" $values.service.type) -}}
{{- end -}}
{{- if eq (int $values.service.grpc) (int $values.service.http) -}}
{{- fail (printf "service.grpc and service.http are both %d: give them different ports" (int $values.service.grpc)) -}}
{{- end -}}
{{- range $name, $value := $values.storage.env -}}
{{- if regexMatch "(SECRET|_TOKEN$|_KEY$|ACCESS_KEY|PASSWORD)" $name -}}
{{- fail (printf "storage.env.%s is a secret: put it into a Secret and name that in storage.secret" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $job := $values.jobs -}}
{{- if not (dig "spec" "data" "url" "" $job) -}}
{{- fail (printf "jobs.%s.spec.data.url is missing: say where its shards are" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
