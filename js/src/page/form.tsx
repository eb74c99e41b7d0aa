// A form by a JSON schema: what people fill in is JSON that fits, and what they don't touch stays as it was.

import { useState } from "preact/hooks"
import type { Json } from "../core/index.js"
import type { Schema } from "./server.js"
import { say } from "./words.js"

export type Values = { [key: string]: Json | undefined }

export const MASK = "**********"

const TYPES: Record<string, string> = { date: "date", email: "email", uri: "url", time: "time" }

interface FieldProps {
  id: string
  name: string
  schema: Schema
  root: Schema
  value: Json | undefined
  isRequired: boolean
  onChange(value: Json | undefined): void
}

/** The fields of an object's schema; `onChange` gets the whole object, undefined for fields that were emptied. */
export function SchemaForm({ schema, values, onChange, prefix = "" }: { schema: Schema; values: Values; onChange(values: Values): void; prefix?: string }) {
  const properties = (schema.properties ?? {}) as Record<string, Schema>
  const required = (schema.required ?? []) as string[]
  return (
    <>
      {Object.entries(properties).map(([name, inner]) => (
        <Field
          key={name} id={`field-${prefix}${name}`} name={name} schema={inner} root={schema} value={values[name]} isRequired={required.includes(name)}
          onChange={value => onChange({ ...values, [name]: value })}
        />
      ))}
    </>
  )
}

/** A schema for arguments whose tool isn't known: one field for each value that is there. */
export function guessSchema(values: Values): Schema {
  const kinds: Record<string, string> = { string: "string", number: "number", boolean: "boolean" }
  const properties = Object.fromEntries(Object.entries(values).map(([name, value]) => [name, { type: kinds[typeof value] ?? "object" }]))
  return { type: "object", properties, required: Object.keys(values) }
}

/** What was changed, field by field, and nothing else: the rest stays as the run has it. */
export function findChanges(before: Values, after: Values): Json | undefined {
  const changed = Object.entries(after).flatMap(([name, value]) => (JSON.stringify(before[name]) === JSON.stringify(value) ? [] : [[name, value ?? null]]))
  return changed.length ? Object.fromEntries(changed) : undefined
}

function Field({ id, name, schema, root, value, isRequired, onChange }: FieldProps) {
  const { inner, isNullable } = read(schema, root)
  const [problem, setProblem] = useState("")
  const [draft, setDraft] = useState<string>()
  const hint = [inner.description ?? schema.description, !isRequired && inner.type !== "boolean" && say("optional")].filter(Boolean).join(" · ")
  const common = { id, name, placeholder: inner.default == null ? undefined : String(inner.default), required: isRequired && !isNullable, "aria-describedby": hint ? `${id}-hint` : undefined }
  const choices = (inner.enum ?? (inner.const !== undefined ? [inner.const] : undefined)) as Json[] | undefined
  const text = value === undefined || value === null ? "" : String(value)
  let input
  if (value === MASK) {
    input = <input {...common} value={say("hidden")} disabled />
  } else if (choices) {
    input = (
      <select {...common} value={text} onChange={event => onChange(choices.find(choice => String(choice) === event.currentTarget.value))}>
        <option value="">{common.required ? say("choose") : common.placeholder ?? say("none")}</option>
        {choices.map(choice => <option value={String(choice)}>{String(choice)}</option>)}
      </select>
    )
  } else if (inner.type === "boolean") {
    input = <input {...common} required={false} type="checkbox" checked={(value ?? inner.default) === true} onChange={event => onChange(event.currentTarget.checked)} />
  } else if (inner.type === "integer" || inner.type === "number") {
    const over = inner.exclusiveMinimum as number | undefined
    input = (
      <input
        {...common} type="number" value={text} step={inner.type === "integer" ? 1 : "any"}
        min={(inner.minimum ?? (over !== undefined && inner.type === "integer" ? over + 1 : over)) as number | undefined}
        max={inner.maximum as number | undefined}
        onInput={event => onChange(event.currentTarget.value === "" ? undefined : event.currentTarget.valueAsNumber)}
      />
    )
  } else if (inner.type === "string") {
    input = (
      <input
        {...common} type={(TYPES[String(inner.format)] ?? "text") as "text"} value={text} pattern={inner.pattern as string | undefined} autocomplete="off"
        minLength={inner.minLength as number | undefined} maxLength={inner.maxLength as number | undefined}
        onInput={event => onChange(event.currentTarget.value || isRequired ? event.currentTarget.value : undefined)}
      />
    )
  } else {
    input = (
      <textarea
        {...common} rows={3} spellcheck={false} value={draft ?? (value === undefined ? "" : JSON.stringify(value, null, 1))}
        onInput={event => {
          const written = event.currentTarget.value
          setDraft(written)
          try {
            onChange(written.trim() ? JSON.parse(written) : undefined)
            event.currentTarget.setCustomValidity("")
            setProblem("")
          } catch {
            event.currentTarget.setCustomValidity(say("notJson"))
            setProblem(say("notJson"))
          }
        }}
      />
    )
  }
  return (
    <label class={inner.type === "boolean" ? "field check" : "field"} for={id}>
      <span>{name}</span>
      {input}
      {(problem || hint) && <small id={`${id}-hint`}>{problem || hint}</small>}
    </label>
  )
}

/** The schema behind references and `or null`. */
function read(schema: Schema, root: Schema): { inner: Schema; isNullable: boolean } {
  let isNullable = false
  let inner = schema
  for (let steps = 0; steps < 10; steps++) {
    const parts = (inner.anyOf ?? inner.oneOf ?? (inner.allOf as Json[] | undefined)) as Schema[] | undefined
    const solid = parts?.filter(part => part.type !== "null")
    if (typeof inner.$ref === "string") {
      const path = inner.$ref.replace(/^#\//, "").split("/")
      inner = path.reduce((at: any, key) => at?.[key.replaceAll("~1", "/").replaceAll("~0", "~")], root) ?? {}
    } else if (Array.isArray(inner.type) && inner.type.includes("null")) {
      isNullable = true
      const types = inner.type.filter(type => type !== "null")
      inner = { ...inner, type: types.length === 1 ? types[0]! : types }
    } else if (solid?.length === 1) {
      isNullable ||= solid.length < parts!.length
      const { anyOf: _, oneOf: __, allOf: ___, ...rest } = inner
      inner = { ...rest, ...solid[0] }
    } else break
  }
  return { inner, isNullable }
}
