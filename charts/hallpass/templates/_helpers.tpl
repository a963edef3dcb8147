{{- define "hallpass.selectorLabels" -}}
app.kubernetes.io/name: hallpass
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hallpass.labels" -}}
{{ include "hallpass.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The operator's username; the admission policies name it. */}}
{{- define "hallpass.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ .Values.serviceAccount.name }}
{{- end }}

{{- /* The operator's configuration, hallpass.yaml. What comes from Secrets and ConfigMaps is mounted at /etc/hallpass/realms. */}}
{{- define "hallpass.config" -}}
{{- if not .Values.realms }}
{{- fail "no realms are configured: list at least one Keycloak realm in `realms` (see values.yaml)" }}
{{- end }}
{{- $names := list }}
realms:
{{- range $i, $realm := .Values.realms }}
{{- $where := printf "realms[%d] (%s)" $i .name }}
{{- if has .name $names }}
{{- fail (printf "%s: another realm has this name" $where) }}
{{- end }}
{{- $names = append $names .name }}
{{- $auth := .auth | default dict }}
{{- if not $auth.clientId }}
{{- fail (printf "%s: auth.clientId is missing: the Keycloak client that the operator signs in with" $where) }}
{{- end }}
{{- if eq (empty $auth.clientSecretRef) (empty $auth.clientSecretFile) }}
{{- fail (printf "%s: set one of auth.clientSecretRef {name, key} and auth.clientSecretFile" $where) }}
{{- end }}
{{- if and .caConfigMapRef .caFile }}
{{- fail (printf "%s: set caConfigMapRef or caFile, not both" $where) }}
{{- end }}
- name: {{ .name | quote }}
  url: {{ .url | quote }}
  realm: {{ .realm | quote }}
  auth:
    clientId: {{ $auth.clientId | quote }}
    clientSecretFile: {{ $auth.clientSecretFile | default (printf "/etc/hallpass/realms/%s/client-secret" .name) | quote }}
  {{- if .caConfigMapRef }}
  caFile: {{ printf "/etc/hallpass/realms/%s/ca.crt" .name | quote }}
  {{- else if .caFile }}
  caFile: {{ .caFile | quote }}
  {{- end }}
  {{- with .identity }}
  identity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .serviceAccounts }}
  serviceAccounts: {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .formerUrls }}
  formerUrls: {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .settleTime }}
  settleTime: {{ . | quote }}
  {{- end }}
  {{- if .allowAdminRoles }}
  allowAdminRoles: true
  {{- end }}
  {{- with .checkInterval }}
  checkInterval: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .Values.release }}
release: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Where the Secrets and ConfigMaps of the realms come from: sources of a projected volume; empty if there are none. */}}
{{- define "hallpass.realmSources" -}}
{{- range $realm := .Values.realms }}
{{- with .auth.clientSecretRef }}
- secret:
    name: {{ .name }}
    items: [{key: {{ .key | quote }}, path: {{ printf "%s/client-secret" $realm.name | quote }}}]
{{- end }}
{{- with .caConfigMapRef }}
- configMap:
    name: {{ .name }}
    items: [{key: {{ .key | quote }}, path: {{ printf "%s/ca.crt" $realm.name | quote }}}]
{{- end }}
{{- end }}
{{- end }}
