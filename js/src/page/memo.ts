import { Component } from "preact"
import type { ComponentChild } from "preact"

/** A component that is drawn again only where its properties aren't the `same`; it has no state of its own. */
export function memo<P extends object>(draw: (props: P) => ComponentChild, same: (before: P, after: P) => boolean) {
  return class extends Component<P> {
    override shouldComponentUpdate(next: P) {
      return !same(this.props as P, next)
    }
    override render() {
      return draw(this.props as P)
    }
  }
}
