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

{{- /* The Job that drains. Its Pod must not be counted as one of the operator's. */}}
{{- define "hallpass.drainLabels" -}}
{{ include "hallpass.labels" . | replace "app.kubernetes.io/name: hallpass" "app.kubernetes.io/name: hallpass-drain" }}
{{- end }}

{{- /* Of every Pod: where it runs, and under which limits. */}}
{{- define "hallpass.place" -}}
securityContext:
  runAsNonRoot: true
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "hallpass.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- /* What a container may use, as the Pod Security level "restricted" wants it. */}}
{{- define "hallpass.confined" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- with .Values.resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
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
{{- $ways := list }}
{{- range $way := list "clientSecretRef" "clientSecretFile" "serviceAccountToken" "serviceAccountTokenFile" "clientKeyRef" "clientKeyFile" }}
{{- if get $auth $way }}
{{- $ways = append $ways $way }}
{{- end }}
{{- end }}
{{- if ne (len $ways) 1 }}
{{- fail (printf "%s: set exactly one of auth.clientSecretRef, clientSecretFile, serviceAccountToken, serviceAccountTokenFile, clientKeyRef and clientKeyFile%s" $where (ternary (printf ", not %s" (join " and " $ways)) "" (gt (len $ways) 1))) }}
{{- end }}
{{- $way := first $ways }}
{{- if and $auth.issuer (not (has $way (list "serviceAccountToken" "clientKeyRef" "clientKeyFile"))) }}
{{- fail (printf "%s: auth.issuer is for serviceAccountToken, clientKeyRef and clientKeyFile, not for %s" $where $way) }}
{{- end }}
{{- $mounted := printf "/etc/hallpass/realms/%s" .name }}
{{- if and .caConfigMapRef .caFile }}
{{- fail (printf "%s: set caConfigMapRef or caFile, not both" $where) }}
{{- end }}
- name: {{ .name | quote }}
  url: {{ .url | quote }}
  realm: {{ .realm | quote }}
  auth:
    clientId: {{ $auth.clientId | quote }}
    {{- if hasPrefix "clientSecret" $way }}
    clientSecretFile: {{ $auth.clientSecretFile | default (printf "%s/client-secret" $mounted) | quote }}
    {{- else if hasPrefix "serviceAccountToken" $way }}
    serviceAccountTokenFile: {{ $auth.serviceAccountTokenFile | default (printf "%s/token" $mounted) | quote }}
    {{- else }}
    clientKeyFile: {{ $auth.clientKeyFile | default (printf "%s/client-key" $mounted) | quote }}
    {{- with $auth.issuer }}
    issuer: {{ . | quote }}
    {{- end }}
    {{- end }}
  {{- if .caConfigMapRef }}
  caFile: {{ printf "%s/ca.crt" $mounted | quote }}
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
{{- with .auth.clientKeyRef }}
- secret:
    name: {{ .name }}
    items: [{key: {{ .key | quote }}, path: {{ printf "%s/client-key" $realm.name | quote }}}]
{{- end }}
{{- if .auth.serviceAccountToken }}
- serviceAccountToken:
    path: {{ printf "%s/token" .name | quote }}
    audience: {{ .auth.issuer | default (printf "%s/realms/%s" .url (.realm | urlquery | replace "+" "%20")) | quote }}
    # Keycloak refuses what is older than an hour; the kubelet renews it after four fifths of this.
    expirationSeconds: 1800
{{- end }}
{{- with .caConfigMapRef }}
- configMap:
    name: {{ .name }}
    items: [{key: {{ .key | quote }}, path: {{ printf "%s/ca.crt" $realm.name | quote }}}]
{{- end }}
{{- end }}
{{- end }}
