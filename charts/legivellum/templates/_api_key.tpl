{{- /*
An API key (D-30): `mgk_<id>_<secret><checksum>`, made here because a Principal declares its digest and DeleGate holds the key itself. The checksum
is CRC-32 in base62. Templates have no operator for bits, so two hexadecimal digits are combined by looking them up in a table.
*/ -}}
{{- define "legivellum.apiKey" -}}
{{- $body := printf "mgk_%s_%s" (randAlphaNum 10) (randAlphaNum 43) -}}
{{- $body }}{{ include "legivellum.base62" (include "legivellum.crc32" $body) -}}
{{- end -}}

{{- /* The CRC-32 of a text, in eight hexadecimal digits. */ -}}
{{- define "legivellum.crc32" -}}
{{- $digits := splitList "" "0123456789abcdef" -}}
{{- $table := list "00000000" "1db71064" "3b6e20c8" "26d930ac" "76dc4190" "6b6b51f4" "4db26158" "5005713c" "edb88320" "f00f9344" "d6d6a3e8" "cb61b38c" "9b64c2b0" "86d3d2d4" "a00ae278" "bdbdf21c" -}}
{{- $remainders := dict -}}
{{- range $at, $digit := $digits }}{{ $_ := set $remainders $digit (index $table $at) }}{{ end -}}
{{- $crc := "ffffffff" -}}
{{- range regexFindAll ".." (printf "%x" .) -1 -}}
{{- range list (substr 1 2 .) (substr 0 1 .) -}}
{{- $low := include "legivellum.xor" (list (substr 7 8 $crc) .) -}}
{{- $crc = include "legivellum.xor" (list (printf "0%s" (substr 0 7 $crc)) (index $remainders $low)) -}}
{{- end -}}
{{- end -}}
{{- include "legivellum.xor" (list $crc "ffffffff") -}}
{{- end -}}

{{- /* Exclusive or of two hexadecimal numbers of the same length: (list "0f" "ff") */ -}}
{{- define "legivellum.xor" -}}
{{- $rows := dict "0" "0123456789abcdef" "1" "1032547698badcfe" "2" "23016745ab89efcd" "3" "32107654ba98fedc" "4" "45670123cdef89ab" "5" "54761032dcfe98ba" "6" "67452301efcdab89" "7" "76543210fedcba98" "8" "89abcdef01234567" "9" "98badcfe10325476" "a" "ab89efcd23016745" "b" "ba98fedc32107654" "c" "cdef89ab45670123" "d" "dcfe98ba54761032" "e" "efcdab8967452301" "f" "fedcba9876543210" -}}
{{- $columns := dict "0" 0 "1" 1 "2" 2 "3" 3 "4" 4 "5" 5 "6" 6 "7" 7 "8" 8 "9" 9 "a" 10 "b" 11 "c" 12 "d" 13 "e" 14 "f" 15 -}}
{{- $other := last . -}}
{{- range $at, $digit := regexFindAll "." (first .) -1 -}}
{{- $column := index $columns (substr $at (int (add $at 1)) $other) -}}
{{- substr $column (int (add $column 1)) (index $rows $digit) -}}
{{- end -}}
{{- end -}}

{{- /* A number of eight hexadecimal digits in six base62 ones. */ -}}
{{- define "legivellum.base62" -}}
{{- $columns := dict "0" 0 "1" 1 "2" 2 "3" 3 "4" 4 "5" 5 "6" 6 "7" 7 "8" 8 "9" 9 "a" 10 "b" 11 "c" 12 "d" 13 "e" 14 "f" 15 -}}
{{- $alphabet := "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" -}}
{{- $number := 0 -}}
{{- range regexFindAll "." . -1 }}{{ $number = add (mul $number 16) (index $columns .) }}{{ end -}}
{{- $text := "" -}}
{{- range until 6 -}}
{{- $rest := int (mod $number 62) -}}
{{- $text = printf "%s%s" (substr $rest (int (add $rest 1)) $alphabet) $text -}}
{{- $number = div $number 62 -}}
{{- end -}}
{{- $text -}}
{{- end -}}
